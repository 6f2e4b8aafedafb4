//! Viewers that read whole objects as fast as they come, and throw them away.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::content::Content;
use crate::viewer::Connection;

/// Reading at once while every byte is checked: the checks share the processors with the edge.
const CHECKED_AT_ONCE: usize = 2;

/// Whom they ask, and what for.
pub(super) struct Viewers {
    address: SocketAddr,
    length: u64,
}

impl Viewers {
    pub(super) fn new(address: SocketAddr, length: u64) -> Viewers {
        Viewers { address, length }
    }

    /// Each of `count` viewers takes the next object when he has the last one.
    pub(super) async fn read(&self, paths: Vec<String>, count: usize) {
        self.all(paths, count, None).await;
    }

    /// The same, and every byte is looked at.
    pub(super) async fn checked(&self, paths: Vec<String>, content: fn(&str) -> Content) {
        self.all(paths, CHECKED_AT_ONCE, Some(content)).await;
    }

    async fn all(&self, paths: Vec<String>, count: usize, content: Option<fn(&str) -> Content>) {
        let paths = Arc::new(Mutex::new(VecDeque::from(paths)));
        let mut viewers = JoinSet::new();
        for _ in 0..count {
            let (paths, address, length) = (paths.clone(), self.address, self.length);
            let next = move || paths.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            viewers.spawn(async move {
                let mut connection = Connection::open(address, None).await.unwrap();
                while let Some(path) = next() {
                    let head = connection.ask(&path, None).await.unwrap();
                    assert_eq!((head.status, head.body_bytes), (200, length), "{path}");
                    match content {
                        None => connection.discard(length).await.unwrap(),
                        Some(of) => connection.read_to(of(&path), 0, length).await.unwrap(),
                    }
                }
            });
        }
        viewers.join_all().await;
    }
}

/// In an order that `seed` decides.
pub(super) fn shuffled(paths: &[String], seed: u32) -> Vec<String> {
    let mut keyed: Vec<_> = paths
        .iter()
        .map(|path| (xxhash_rust::xxh3::xxh3_64_with_seed(path.as_bytes(), seed.into()), path))
        .collect();
    keyed.sort();
    keyed.into_iter().map(|(_, path)| path.clone()).collect()
}
