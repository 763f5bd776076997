//! A proxy between the sidecar and the API server, by a kubeconfig and by the environment.

use serde_json::Value;

use crate::harness::access::Access;
use crate::harness::certificates::{Authority, LAST_YEAR};
use crate::harness::cluster::{ApiServer, Port};
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::proxy::{Protocol, Proxy};
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::{Workspace, write};

/// A launch with a kubeconfig for the shared server at the IP address, after a change of its cluster.
fn launch<'w>(
    namespace: &Namespace,
    workspace: &'w Workspace,
    ip: &str,
    change: impl FnOnce(&mut Value),
) -> Launch<'w> {
    let access = ApiServer::shared().admin_access();
    let mut kubeconfig: Value = serde_json::from_str(&access.kubeconfig()).expect("JSON");
    let cluster = &mut kubeconfig["clusters"][0]["cluster"];
    cluster["server"] = format!("https://{ip}:{}", access.address.port()).into();
    cluster["tls-server-name"] = "localhost".into();
    change(cluster);
    let path = workspace.fresh("kubeconfig");
    write(&path, kubeconfig.to_string());
    Launch::new(workspace).arg("--kubeconfig").arg(path).args(["--namespace", &namespace.name])
}

/// An address of this machine that is not a loopback address.
const HERE: &str = "0.0.0.0";

/// Where no proxy is.
const NOWHERE: &str = "http://127.0.0.1:1";

async fn namespace() -> Namespace {
    let namespace = Namespace::new().await;
    namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
    namespace
}

#[test]
fn https_proxy_leads_to_the_api_server() {
    run(async {
        let namespace = namespace().await;
        let authority = Authority::new();
        let Access { address, authority: of_server, .. } = ApiServer::shared().admin_access();
        let both = authority.pem() + &of_server.expect("an authority");
        let tls = Protocol::Https(authority.server(LAST_YEAR));
        for (scheme, protocol) in [("http", Protocol::Http), ("https", tls), ("socks5", Protocol::Socks)] {
            let (workspace, proxy) = (Workspace::new(), Proxy::to(address, protocol).await);
            write(&workspace.beside("both.pem"), &both);
            let user = if scheme == "socks5" { "" } else { "jane:secret-word@" };
            let launch = launch(&namespace, &workspace, HERE, |cluster| {
                cluster["certificate-authority-data"] = Value::Null;
                cluster["certificate-authority"] = workspace.beside("both.pem").display().to_string().into();
            });
            let launch = launch.args(["--log-level", "debug"]);
            let sidecar = launch.environment("HTTPS_PROXY", format!("{scheme}://{user}{}", proxy.address)).start();
            sidecar.holds([("a.yaml", "1")]).await;
            let asked = proxy.asked().into_iter().next().unwrap_or_default();
            assert!(asked.contains(&format!("{HERE}:{}", address.port())), "{scheme}: {asked}");
            assert_eq!(asked.contains("Basic amFuZTpzZWNyZXQtd29yZA=="), !user.is_empty(), "{scheme}: {asked}");
            assert_eq!(sidecar.lines_with(&["secret-word"]), [""; 0]);
            sidecar.terminate().await;
        }
    });
}

#[test]
fn no_proxy_leads_past_https_proxy() {
    run(async {
        let (namespace, workspace) = (namespace().await, Workspace::new());
        for (ip, variable, exceptions) in [
            (HERE, "NO_PROXY", "example.com, 0.0.0.0"),
            (HERE, "no_proxy", "0.0.0.0/8"),
            (HERE, "NO_PROXY", "*"),
            ("127.0.0.1", "NO_PROXY", "example.com"),
        ] {
            let launch = launch(&namespace, &workspace, ip, |_| {}).environment(variable, exceptions);
            let sidecar = launch.environment("HTTPS_PROXY", NOWHERE).start();
            sidecar.in_sync().await;
            sidecar.terminate().await;
        }
    });
}

#[test]
fn proxy_url_counts_whatever_no_proxy_says() {
    run(async {
        let (namespace, workspace) = (namespace().await, Workspace::new());
        let proxy = Proxy::to(ApiServer::shared().admin_access().address, Protocol::Http).await;
        let url = format!("http://{}", proxy.address);
        let launch = launch(&namespace, &workspace, "127.0.0.1", |cluster| cluster["proxy-url"] = url.into());
        let sidecar = launch.environment("NO_PROXY", "*").environment("HTTPS_PROXY", NOWHERE).start();
        sidecar.holds([("a.yaml", "1")]).await;
        assert!(!proxy.asked().is_empty());
    });
}

#[test]
fn a_proxy_that_fails_is_named_without_its_password() {
    run(async {
        let (namespace, workspace, port) = (namespace().await, Workspace::new(), Port::reserve());
        let launch = launch(&namespace, &workspace, HERE, |_| {});
        let url = format!("http://jane:secret-word@{}", port.address);
        let sidecar = launch.clone().environment("HTTPS_PROXY", url).start();
        let line = sidecar.says(&format!("through the proxy http://{}", port.address)).await;
        assert!(line.contains("refused") && line.contains(HERE), "{line}");
        assert_eq!(sidecar.lines_with(&["secret-word"]), [""; 0]);
        sidecar.terminate().await;

        let ended = launch.environment("HTTPS_PROXY", "ftp://jane:secret-word@proxy").run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("\"ftp\"") && ended.stderr.contains("correct HTTPS_PROXY"), "{ended:?}");
        assert!(!ended.stderr.contains("secret-word"), "{ended:?}");
    });
}
