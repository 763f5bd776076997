//! Certificates with keys and signatures that clusters use beyond the most common ones.

use serde_json::{Value, json};

use crate::harness::access::Access;
use crate::harness::certificates::{ecdsa_server, write_ecdsa};
use crate::harness::cluster::{ApiServer, Cluster};
use crate::harness::faulty::Faulty;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::{Workspace, write};

/// The server's key is on P-256; its authority signs by a curve and a hash.
#[test]
fn every_ecdsa_signature_of_an_authority_is_accepted() {
    run(async {
        let namespace = Namespace::new().await;
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        for (authority, hash) in [
            ("prime256v1", "sha512"),
            ("secp384r1", "sha512"),
            ("secp521r1", "sha256"),
            ("secp521r1", "sha384"),
            ("secp521r1", "sha512"),
        ] {
            let workspace = Workspace::new();
            let folder = write_ecdsa(&workspace, authority, hash, "prime256v1");
            let faulty = Faulty::before(&ApiServer::shared().admin_access()).await;
            faulty.identify_by(ecdsa_server(&folder));
            let pem = std::fs::read_to_string(folder.join("ca.pem")).expect("a certificate");
            let access = Access { authority: Some(pem), ..faulty.access.clone() };
            let url = format!("{}/livez", access.url());
            let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
            let launch = launch.args(["--url", &url, "--url-ca-file"]).arg(folder.join("ca.pem"));
            let sidecar = launch.args(["--log-level", "debug"]).start();
            sidecar.holds([("a.yaml", "1")]).await;
            sidecar.says(&format!("called {url}")).await;
        }
    });
}

#[test]
fn p521_keys_of_server_and_client_are_accepted() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let folder = write_ecdsa(&workspace, "secp521r1", "sha512", "secp521r1");
        let file = |name: &str| folder.join(name).display().to_string();
        // By name the server identifies itself by this certificate, by IP address with that of all tests.
        let by_name = format!("--tls-sni-cert-key={},{}:localhost", file("server.pem"), file("server.key"));
        let flags = [by_name, format!("--client-ca-file={}", file("ca.pem"))];
        let server = Cluster::shared().api_server("p521", &flags.each_ref().map(String::as_str)).await;
        let access = server.admin_access();
        let address = format!("https://localhost:{}", access.address.port());

        let mut kubeconfig: Value = serde_json::from_str(&access.kubeconfig()).expect("JSON");
        kubeconfig["clusters"][0]["cluster"] = json!({ "server": address, "certificate-authority": file("ca.pem") });
        for key in ["client.key", "client.pkcs8.key"] {
            let user = json!({ "client-certificate": file("client.pem"), "client-key": file(key) });
            kubeconfig["users"][0]["user"] = user;
            let path = workspace.fresh("kubeconfig");
            write(&path, kubeconfig.to_string());
            let url = format!("{address}/livez");
            let launch = Launch::new(&workspace).arg("--kubeconfig").arg(path).args(["--namespace", &namespace.name]);
            let launch = launch.args(["--url", &url, "--initial-bump", "always", "--log-level", "debug"]);
            let sidecar = launch.args(["--url-ca-file", &file("ca.pem")]).start();
            sidecar.holds([("a.yaml", "1")]).await;
            sidecar.says(&format!("called {url}")).await;
        }
    });
}
