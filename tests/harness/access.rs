//! How to reach an API server as somebody: for the tests' own client, and for the kubeconfig of a sidecar.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::config::AuthInfo;
use serde_json::{Value, json};

#[derive(Clone)]
pub struct Access {
    pub address: SocketAddr,
    /// The certificate that vouches for the server, in PEM; without it only a client that does not verify gets through.
    pub authority: Option<String>,
    pub token: String,
}

impl Access {
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// A client for this test's runtime.
    pub fn client(&self) -> Client {
        let mut config = kube::Config::new(self.url().parse().expect("a URL"));
        let authority = self.authority.as_deref().expect("tests verify the server");
        config.root_cert = Some(vec![certificate(authority)]);
        config.auth_info = AuthInfo { token: Some(self.token.clone().into()), ..AuthInfo::default() };
        Client::try_from(config).expect("a client")
    }

    /// A kubeconfig with one context, named `main`.
    pub fn kubeconfig(&self) -> String {
        kubeconfig(&[Context { name: "main", access: self, namespace: None }])
    }
}

/// A context of a kubeconfig.
pub struct Context<'a> {
    pub name: &'a str,
    pub access: &'a Access,
    pub namespace: Option<&'a str>,
}

/// A kubeconfig whose current context is the first.
pub fn kubeconfig(contexts: &[Context<'_>]) -> String {
    let each = |entry: &dyn Fn(&Context<'_>) -> Value| contexts.iter().map(entry).collect::<Value>();
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": contexts[0].name,
        "clusters": each(&|context| {
            let authority = context.access.authority.as_ref().map(|pem| STANDARD.encode(pem));
            json!({ "name": context.name, "cluster": {
                "server": context.access.url(), "certificate-authority-data": authority,
            }})
        }),
        "users": each(&|context| json!({ "name": context.name, "user": { "token": context.access.token } })),
        "contexts": each(&|context| json!({ "name": context.name, "context": {
            "cluster": context.name, "user": context.name, "namespace": context.namespace,
        }})),
    })
    .to_string()
}

/// The DER of a certificate in PEM.
pub fn certificate(pem: &str) -> Vec<u8> {
    let lines: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(lines).expect("PEM")
}
