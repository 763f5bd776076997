//! Where the server and the credentials are written down.

use std::path::PathBuf;

use kube::Config;
use kube::config::{AuthInfo, Context, KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::super::causes;
use super::SessionError;
use crate::config::ClusterConfig;
use crate::source::selector::is_dns_label;

/// What a pod is given.
const POD_CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A pod's own namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The place that was chosen at the start, and the only one that is read from then on: the files in the directory are
/// those of one cluster, so a kubeconfig that turns to another context, or vanishes, must not lead to another one.
/// Address and credentials may change within it.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    place: Place,
    tls_verify: bool,
}

#[derive(Clone, Debug)]
enum Place {
    Kubeconfig {
        files: Files,
        /// `None`: the kubeconfig has no current context.
        context: Option<String>,
    },
    Pod,
}

#[derive(Clone, Debug)]
enum Files {
    /// That of the option, or of the home folder.
    One(PathBuf),
    /// Those that `KUBECONFIG` lists.
    Listed,
}

impl Origin {
    /// Chooses as kubectl does: the kubeconfig of the option, else those that `KUBECONFIG` lists, else `~/.kube/config` if
    /// it is there, else the pod's service account.
    pub fn find(config: &ClusterConfig) -> Result<Self, SessionError> {
        let place = match Files::find(config) {
            None => Place::Pod,
            Some(files) => {
                let context = match &config.context {
                    Some(named) => Some(named.clone()),
                    None => files.read()?.current_context,
                };
                Place::Kubeconfig { files, context }
            }
        };
        Ok(Self { place, tls_verify: config.tls_verify })
    }

    /// The namespace that is meant when none is named: that of the kubeconfig's context; where that names none, as in a pod
    /// without a kubeconfig, the pod's own; else `default`. kubectl looks in the same order.
    pub fn namespace(&self) -> Result<String, SessionError> {
        let of_context = match &self.place {
            Place::Kubeconfig { files, context } => {
                let namespace = find_context(&files.read()?, context.as_ref())?.and_then(|context| context.namespace);
                namespace.map(|namespace| (namespace, format!("the context {:?}", context.as_deref().unwrap_or(""))))
            }
            Place::Pod => None,
        };
        let of_pod = || {
            let namespace = std::fs::read_to_string(POD_NAMESPACE).ok()?;
            Some((namespace.trim().to_owned(), POD_NAMESPACE.to_owned()))
        };
        let named = |(namespace, _): &(String, String)| !namespace.is_empty();
        match of_context.filter(named).or_else(|| of_pod().filter(named)) {
            None => Ok("default".to_owned()),
            Some((namespace, _)) if is_dns_label(&namespace) => Ok(namespace),
            Some((namespace, of)) => Err(SessionError::Namespace { namespace, of }),
        }
    }

    /// Every file that is named there now; in a pod the folder of them.
    pub fn reads(&self) -> Vec<PathBuf> {
        match &self.place {
            Place::Kubeconfig { files, .. } => files.named(),
            Place::Pod => vec![PathBuf::from(POD_CREDENTIALS)],
        }
    }

    /// Reads what is written there now.
    pub async fn read(&self) -> Result<Config, SessionError> {
        let mut config = match &self.place {
            Place::Kubeconfig { files, context } => {
                let kubeconfig = files.read()?;
                find_context(&kubeconfig, context.as_ref())?;
                let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                config.map_err(|error| files.unusable(&error))?
            }
            Place::Pod => Config::incluster().map_err(|error| SessionError::NoCluster { why: causes(&error) })?,
        };
        config.accept_invalid_certs |= !self.tls_verify;
        // kube would read it anew on its own schedule, while the whole session is read anew here.
        config.root_cert_file = None;
        read_token(&mut config.auth_info)?;
        Ok(config)
    }
}

impl Files {
    fn find(config: &ClusterConfig) -> Option<Self> {
        if let Some(path) = &config.kubeconfig {
            return Some(Self::One(path.clone()));
        }
        let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
        if std::env::split_paths(&listed).any(|path| !path.as_os_str().is_empty()) {
            return Some(Self::Listed);
        }
        std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists()).map(Self::One)
    }

    fn read(&self) -> Result<Kubeconfig, SessionError> {
        let read = match self {
            Self::One(path) => Kubeconfig::read_from(path),
            Self::Listed => Kubeconfig::from_env().map(Option::unwrap_or_default),
        };
        read.map_err(|error| self.unusable(&error))
    }

    /// The kubeconfigs, and the files that they name.
    fn named(&self) -> Vec<PathBuf> {
        let mut named: Vec<PathBuf> = match self {
            Self::One(path) => vec![path.clone()],
            Self::Listed => std::env::split_paths(&std::env::var_os("KUBECONFIG").unwrap_or_default()).collect(),
        };
        let Ok(kubeconfig) = self.read() else { return named };
        let clusters = kubeconfig.clusters.into_iter().filter_map(|cluster| cluster.cluster);
        let users = kubeconfig.auth_infos.into_iter().filter_map(|user| user.auth_info);
        let of_clusters = clusters.filter_map(|cluster| cluster.certificate_authority);
        let of_users = users.flat_map(|user| [user.client_certificate, user.client_key, user.token_file]);
        named.extend(of_clusters.chain(of_users.flatten()).map(PathBuf::from));
        named.retain(|path| !path.as_os_str().is_empty());
        named
    }

    fn unusable(&self, error: &KubeconfigError) -> SessionError {
        let why = match error {
            // What it says of the text may repeat a token.
            KubeconfigError::Parse(error) => match error.location() {
                Some(at) => format!("line {}, column {}: that is no kubeconfig", at.line(), at.column()),
                None => "it is no kubeconfig".to_owned(),
            },
            error => causes(error),
        };
        match self {
            Self::One(path) => SessionError::Kubeconfig { path: path.clone(), why },
            Self::Listed => SessionError::DefaultKubeconfig { why },
        }
    }
}

/// The context of that name, which must be there.
fn find_context(kubeconfig: &Kubeconfig, name: Option<&String>) -> Result<Option<Context>, SessionError> {
    let Some(name) = name else { return Ok(None) };
    match kubeconfig.contexts.iter().find(|context| context.name == *name) {
        Some(found) => Ok(found.context.clone()),
        None => {
            let known: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
            Err(SessionError::Context { context: name.clone(), known: known.join(", ") })
        }
    }
}

/// Puts the token file's text in the file's place: kube would send a final newline along. As with client-go, the file
/// counts, and a token beside it only if the file cannot be read.
fn read_token(auth: &mut AuthInfo) -> Result<(), SessionError> {
    let Some(path) = auth.token_file.take().filter(|path| !path.is_empty()) else { return Ok(()) };
    let problem = match std::fs::read_to_string(&path) {
        Ok(token) if token.trim().is_empty() => "it is empty".to_owned(),
        Ok(token) => {
            auth.token = Some(token.trim().to_owned().into());
            return Ok(());
        }
        Err(error) => error.to_string(),
    };
    if auth.token.is_some() {
        return Ok(());
    }
    Err(SessionError::Client(format!("the token {path} cannot be read: {problem}")))
}
