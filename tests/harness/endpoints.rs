//! The endpoints of a sidecar, asked as kubelet, Prometheus and people do.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;

use super::sidecar::Sidecar;
use super::wait::{PATIENCE, until};
use super::web::{Answer, ask};

pub struct Endpoints {
    pub address: SocketAddr,
}

impl Endpoints {
    /// Where the sidecar says that they are.
    pub async fn of(sidecar: &Sidecar<'_>) -> Self {
        let line = sidecar.says("the endpoints are at http://").await;
        let address = line.rsplit_once("http://").and_then(|(_, address)| address.parse().ok());
        let mut address: SocketAddr = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        Self { address }
    }

    pub async fn get(&self, path: &str) -> Answer {
        ask(self.address, path).await.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The status of a probe, and what it says.
    pub async fn probe(&self, path: &str) -> (u16, String) {
        let Answer { status, body, .. } = self.get(path).await;
        (status, body)
    }

    /// Waits until a probe has this status, and gives what it says then.
    pub async fn becomes(&self, path: &str, status: u16) -> String {
        until(PATIENCE, &format!("{path} to be {status}"), async || match self.probe(path).await {
            (found, body) if found == status => Ok(body),
            other => Err(format!("{other:?}")),
        })
        .await
    }

    pub async fn status(&self) -> Value {
        let Answer { status, body, .. } = self.get("/status").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"))
    }

    /// Waits until `/status` is as it should be.
    pub async fn shows(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(PATIENCE, &format!("a status with {what}"), async || {
            let status = self.status().await;
            if holds(&status) { Ok(status) } else { Err(status.to_string()) }
        })
        .await
    }

    pub async fn metrics(&self) -> Metrics {
        let Answer { status, head, body } = self.get("/metrics").await;
        assert_eq!(status, 200, "{body}");
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{head}");
        Metrics::parse(&body)
    }

    /// Waits until a sample has this value.
    pub async fn counts(&self, sample: &str, value: f64) {
        until(PATIENCE, &format!("{sample} to be {value}"), async || {
            let found = self.metrics().await.value(sample);
            #[expect(clippy::float_cmp, reason = "counts are whole numbers")]
            if found == value { Ok(()) } else { Err(found.to_string()) }
        })
        .await;
    }
}

/// What was scraped.
pub struct Metrics {
    /// The families by name, each with its type.
    pub families: Vec<(String, String)>,
    samples: Vec<(String, f64)>,
}

impl Metrics {
    /// Takes nothing but what OpenMetrics allows.
    fn parse(text: &str) -> Self {
        let mut metrics = Self { families: Vec::new(), samples: Vec::new() };
        let lines = text.strip_suffix("# EOF\n").expect("the end");
        for line in lines.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                let (name, kind) = described.split_once(' ').expect("a name and a type");
                metrics.families.push((name.to_owned(), kind.to_owned()));
            } else if !line.starts_with("# HELP ") {
                let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
                let (family, kind) = metrics.families.last().expect("a family");
                let name = sample.split('{').next().unwrap_or_default();
                let suffixes: &[&str] = match kind.as_str() {
                    "counter" => &["_total"],
                    "info" => &["_info"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line}");
                metrics.samples.push((sample.to_owned(), value.parse().expect("a number")));
            }
        }
        metrics
    }

    /// The value of a sample, named as it is in the text.
    pub fn value(&self, sample: &str) -> f64 {
        let found = self.samples.iter().find(|(name, _)| name == sample);
        found.unwrap_or_else(|| panic!("no {sample} among {:?}", self.samples)).1
    }
}
