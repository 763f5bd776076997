mod answers;
mod options;
mod server;
mod tls;

use std::collections::BTreeMap;

use super::*;
use crate::bump::BootTime;
use server::{Server, Told};

type Outcome = Result<(), Box<dyn Error>>;

/// How long a test waits for what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone";

/// Calls as the options say: what an error says, or that there was none.
async fn call(options: UrlOptions) -> Result<String, UrlConfigError> {
    let mut url = Url::new(UrlConfig::new(options)?);
    let batch = Batch { changes: BTreeMap::new(), complete_at: BootTime::now(), to_everybody: false, is_cut: false };
    Ok(match url.bump(&batch).await {
        Ok(()) => "success".to_owned(),
        Err(error) => error.to_string(),
    })
}
