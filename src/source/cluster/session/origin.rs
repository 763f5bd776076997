//! Where the server and the credentials are written down.

use std::io::ErrorKind;
use std::path::PathBuf;

use http::Uri;
use kube::Config;
use kube::config::{AuthInfo, Context, KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::super::causes;
use super::SessionError;
use super::proxy::{self, Proxy};
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

/// Returns the files that `KUBECONFIG` lists.
fn listed() -> Vec<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect()
}

/// Merges the kubeconfigs and skips those that are missing, unless all are.
fn read_present(paths: Vec<PathBuf>) -> Result<Kubeconfig, KubeconfigError> {
    let (mut merged, mut missing) = (None, None);
    for path in paths {
        match Kubeconfig::read_from(path) {
            Err(KubeconfigError::ReadConfig(error, path)) if error.kind() == ErrorKind::NotFound => {
                missing.get_or_insert(KubeconfigError::ReadConfig(error, path));
            }
            read => merged = Some(merged.unwrap_or_else(Kubeconfig::default).merge(read?)?),
        }
    }
    match (merged, missing) {
        (None, Some(missing)) => Err(missing),
        (merged, _) => Ok(merged.unwrap_or_default()),
    }
}

/// Returns true in a pod, by the variable that every container of a pod has.
fn is_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|host| !host.is_empty())
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

    /// Reads what is written there now, and chooses the proxy to the server that it names.
    pub async fn read(&self) -> Result<(Config, Option<Proxy>), SessionError> {
        let mut of_kubeconfig = None;
        let mut config = match &self.place {
            Place::Kubeconfig { files, context } => {
                let mut kubeconfig = files.read()?;
                if let Some(context) = find_context(&kubeconfig, context.as_ref())? {
                    of_kubeconfig = take_proxy(&mut kubeconfig, &context);
                }
                let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                let mut config = config.map_err(|error| files.unusable(&error))?;
                if let Some(cluster) = config.auth_info.exec.as_mut().and_then(|exec| exec.cluster.as_mut()) {
                    cluster.proxy_url.clone_from(&of_kubeconfig);
                }
                config
            }
            Place::Pod => Config::incluster().map_err(|error| SessionError::NoCluster { why: causes(&error) })?,
        };
        config.accept_invalid_certs |= !self.tls_verify;
        if config.accept_invalid_certs && config.root_cert.is_none() {
            // kube would need authorities of the system, although it verifies nothing.
            config.root_cert = Some(Vec::new());
        }
        let proxy = choose_proxy(of_kubeconfig, &config.cluster_url)?;
        // kube would read it anew on its own schedule, while the whole session is read anew here.
        config.root_cert_file = None;
        read_token(&mut config.auth_info)?;
        Ok((config, proxy))
    }
}

impl Files {
    fn find(config: &ClusterConfig) -> Option<Self> {
        if let Some(path) = &config.kubeconfig {
            return Some(Self::One(path.clone()));
        }
        let listed = listed();
        if listed.iter().any(|path| path.try_exists().unwrap_or(true)) || (!listed.is_empty() && !is_pod()) {
            return Some(Self::Listed);
        }
        if !listed.is_empty() {
            tracing::warn!("KUBECONFIG lists no file that exists: using the service account of the pod");
            return None;
        }
        std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists()).map(Self::One)
    }

    fn read(&self) -> Result<Kubeconfig, SessionError> {
        let read = match self {
            Self::One(path) => Kubeconfig::read_from(path),
            Self::Listed => read_present(listed()),
        };
        read.map_err(|error| self.unusable(&error))
    }

    /// The kubeconfigs, and the files that they name.
    fn named(&self) -> Vec<PathBuf> {
        let mut named: Vec<PathBuf> = match self {
            Self::One(path) => vec![path.clone()],
            Self::Listed => listed(),
        };
        let Ok(kubeconfig) = self.read() else { return named };
        let clusters = kubeconfig.clusters.into_iter().filter_map(|cluster| cluster.cluster);
        let users = kubeconfig.auth_infos.into_iter().filter_map(|user| user.auth_info);
        let of_clusters = clusters.filter_map(|cluster| cluster.certificate_authority);
        let of_users = users.flat_map(|user| [user.client_certificate, user.client_key, user.token_file]);
        let of_both = of_clusters.chain(of_users.flatten()).filter(|path| !path.is_empty());
        named.extend(of_both.map(PathBuf::from));
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

/// Takes the `proxy-url` of the context's cluster. What stays in its place keeps kube from reading `HTTPS_PROXY`, which it does
/// without regard to `NO_PROXY`.
fn take_proxy(kubeconfig: &mut Kubeconfig, context: &Context) -> Option<String> {
    let mut clusters = kubeconfig.clusters.iter_mut().filter(|cluster| cluster.name == context.cluster);
    let cluster = clusters.next()?.cluster.as_mut()?;
    cluster.proxy_url.replace("http://unused".to_owned()).filter(|proxy| !proxy.is_empty())
}

/// Chooses the proxy to the server: that of the kubeconfig, else that of the environment.
fn choose_proxy(of_kubeconfig: Option<String>, server: &Uri) -> Result<Option<Proxy>, SessionError> {
    let of_environment = || proxy::of_environment(server, &|name| std::env::var(name).ok());
    let (text, of) = match of_kubeconfig {
        Some(text) => (Some(text), "proxy-url in the kubeconfig"),
        None => (of_environment(), "HTTPS_PROXY, or name the server in NO_PROXY"),
    };
    let proxy = text.map(|text| Proxy::parse(&text)).transpose();
    proxy.map_err(|why| SessionError::Proxy { server: server.to_string(), why, of })
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
