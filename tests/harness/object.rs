//! The objects that tests make.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::api::ObjectMeta;

/// The selector that [`config_map`] and [`secret`] fulfil.
pub const LABELS: &str = "app=web";

/// A ConfigMap with this `data`.
pub fn config_map<const N: usize>(name: &str, data: [(&str, &str); N]) -> ConfigMap {
    let data = data.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ConfigMap { metadata: metadata(name), data: Some(data.into()), ..ConfigMap::default() }
}

/// A ConfigMap with many keys.
pub fn large_config_map(name: &str, data: impl IntoIterator<Item = (String, String)>) -> ConfigMap {
    ConfigMap { metadata: metadata(name), data: Some(data.into_iter().collect()), ..ConfigMap::default() }
}

/// A ConfigMap with this `binaryData`.
pub fn binary_config_map<const N: usize>(name: &str, data: [(&str, &[u8]); N]) -> ConfigMap {
    ConfigMap { metadata: metadata(name), binary_data: Some(bytes(data)), ..ConfigMap::default() }
}

/// A Secret with this `data`.
pub fn secret<const N: usize>(name: &str, data: [(&str, &[u8]); N]) -> Secret {
    Secret { metadata: metadata(name), data: Some(bytes(data)), ..Secret::default() }
}

/// The same object with these labels only.
pub fn labelled<K: ResourceExt, const N: usize>(mut object: K, labels: [(&str, &str); N]) -> K {
    *object.labels_mut() = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    object
}

/// The same object with one more annotation.
pub fn annotated<K: ResourceExt>(mut object: K, key: &str, value: &str) -> K {
    object.annotations_mut().insert(key.to_owned(), value.to_owned());
    object
}

fn metadata(name: &str) -> ObjectMeta {
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() }
}

fn bytes<const N: usize>(data: [(&str, &[u8]); N]) -> BTreeMap<String, ByteString> {
    data.map(|(key, value)| (key.to_owned(), ByteString(value.to_vec()))).into()
}
