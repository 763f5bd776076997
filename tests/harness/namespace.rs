//! A namespace of its own for every test.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use super::cluster::ApiServer;
use super::object::{LABELS, config_map};
use super::wait::{PATIENCE, until};
use super::workspace::Files;

const AT_A_TIME: usize = 32;

/// A kind that lives in namespaces.
pub trait Item:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Item for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// A namespace that no other test knows.
pub struct Namespace {
    pub name: String,
    client: Client,
}

impl Namespace {
    /// Names ascend in the order of creation.
    pub async fn new() -> Self {
        Self::on(ApiServer::shared()).await
    }

    /// The same on a server that is not everybody's.
    pub async fn on(server: &ApiServer) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{:03}", COUNT.fetch_add(1, Ordering::Relaxed));
        let client = server.admin();
        let mut namespace = v1::Namespace::default();
        namespace.metadata.name = Some(name.clone());
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("a new namespace");
        Self { name, client }
    }

    /// One that is there anyway, and shared by whoever uses it.
    pub fn known(name: &str) -> Self {
        Self { name: name.to_owned(), client: ApiServer::shared().admin() }
    }

    pub async fn create<K: Item>(&self, object: &K) -> K {
        self.api().create(&PostParams::default(), object).await.expect("creation")
    }

    /// Many at a time, in no particular order.
    pub async fn create_all<K: Item>(&self, objects: &[K]) {
        for some in objects.chunks(AT_A_TIME) {
            let mut creations = JoinSet::new();
            for object in some {
                let (api, object) = (self.api(), object.clone());
                creations.spawn(async move { api.create(&PostParams::default(), &object).await.expect("creation") });
            }
            creations.join_all().await;
        }
    }

    pub async fn replace<K: Item>(&self, object: &K) -> K {
        self.api().replace(&object.name_any(), &PostParams::default(), object).await.expect("replacement")
    }

    pub async fn delete<K: Item>(&self, object: &K) {
        self.api::<K>().delete(&object.name_any(), &DeleteParams::default()).await.expect("deletion");
    }

    /// Many at a time, in no particular order.
    pub async fn delete_all<K: Item>(&self, objects: &[K]) {
        for some in objects.chunks(AT_A_TIME) {
            let mut deletions = JoinSet::new();
            for name in some.iter().map(ResourceExt::name_any) {
                let api = self.api::<K>();
                deletions.spawn(async move { api.delete(&name, &DeleteParams::default()).await.expect("deletion") });
            }
            deletions.join_all().await;
        }
    }

    /// The values of the ConfigMaps that [`config_map`] makes, by their keys, as the server has them now.
    pub async fn files(&self) -> Files {
        let params = ListParams::default().labels(LABELS);
        let objects = self.api::<v1::ConfigMap>().list(&params).await.expect("a list");
        Files::new(objects.into_iter().flat_map(|object| object.data.unwrap_or_default()))
    }

    /// Waits until an object created now is younger than this one, by the server's clock, which counts seconds.
    pub async fn wait_to_be_younger_than(&self, older: &impl Item) {
        let older = older.creation_timestamp().expect("an object that was created");
        let trial = PostParams { dry_run: true, ..PostParams::default() };
        until(PATIENCE, "the next second of the server's clock", async || {
            let created: Option<Time> =
                self.api().create(&trial, &config_map("clock", [])).await.expect("a dry run").creation_timestamp();
            if created > Some(older.clone()) { Ok(()) } else { Err("the same second".to_owned()) }
        })
        .await;
    }

    /// The typed client for objects in here.
    pub fn api<K: Item>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }
}
