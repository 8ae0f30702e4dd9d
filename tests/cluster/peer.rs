//! An instance that the test plays: it has a heartbeat and owns all shards, and answers what it is told to.

use std::sync::Arc;

use machinegun::clock::random_bytes;
use machinegun::storage::leases::{Heartbeat, InstanceId, Owner};
use machinegun::storage::memory::Memory;
use machinegun::storage::{Leases, Storage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::live::PATIENCE;

pub struct Peer {
    storage: Arc<Memory>,
    heartbeat: Heartbeat,
    listener: Option<TcpListener>,
}

/// A request that came to it.
pub struct Came {
    stream: TcpStream,
    pub head: String,
    pub body: Vec<u8>,
}

// === impl Peer ===

impl Peer {
    /// It owns all shards from here on, whoever had them.
    pub async fn settle(storage: &Arc<Memory>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let heartbeat =
            Heartbeat { instance: InstanceId(random_bytes()), beat: 1, changes: 0, address, leaving: false };
        let peer = Self { storage: storage.clone(), heartbeat, listener: Some(listener) };
        assert!(peer.leases().beat(&peer.heartbeat).await.expect("memory"));
        peer.give_all(peer.heartbeat.instance).await;
        peer
    }

    fn leases(&self) -> &dyn Leases {
        self.storage.leases().expect("shared")
    }

    pub async fn beat(&mut self) {
        self.heartbeat.beat += 1;
        assert!(self.leases().beat(&self.heartbeat).await.expect("memory"), "it was declared dead");
    }

    /// It goes, and leaves all to another.
    pub async fn leave_to(&mut self, heir: InstanceId) {
        self.heartbeat.leaving = true;
        self.beat().await;
        self.give_all(heir).await;
    }

    async fn give_all(&self, to: InstanceId) {
        let owners = self.leases().owners().await.expect("memory");
        for shard in 0..self.leases().shards() {
            let epoch = owners.iter().find(|owner| owner.shard == shard).map_or(1, |owner| owner.epoch + 1);
            let owner = Owner { shard, epoch, instance: Some(to) };
            assert!(self.leases().assign(&owner).await.expect("memory"));
        }
    }

    /// It listens no more, but lives on.
    pub fn close(&mut self) {
        self.listener = None;
    }

    pub async fn came(&self) -> Came {
        let listener = self.listener.as_ref().expect("it listens");
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await;
        let (mut stream, _) = accepted.expect("a connection in time").expect("accepted");
        let mut read = Vec::new();
        let whole = async {
            loop {
                stream.read_buf(&mut read).await.expect("readable");
                let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
                let head = String::from_utf8(read[..at].to_vec()).expect("ASCII");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.expect("a length").parse().expect("a number");
                if read.len() >= at + 4 + length {
                    return (head, read[at + 4..].to_vec());
                }
            }
        };
        let (head, body) = tokio::time::timeout(PATIENCE, whole).await.expect("a request in time");
        Came { stream, head, body }
    }

    pub async fn nobody_came(&self) {
        let accepting = std::pin::pin!(self.listener.as_ref().expect("it listens").accept());
        assert!(futures_util::poll!(accepting).is_pending(), "a request came");
    }
}

// === impl Came ===

impl Came {
    pub fn header(&self, wanted: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(name, _)| *name == wanted).map(|(_, value)| value)
    }

    /// Answers; the connection closes behind it.
    pub async fn answer(mut self, status: &str, headers: &[&str], body: &[u8]) {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
        self.stream.write_all(&[head.as_bytes(), body].concat()).await.expect("writable");
    }

    pub async fn refuse_as_not_owner(self) {
        let headers = [
            "woody.error-class: Resource Unavailable",
            "woody.error-reason: not the owner of the machine's shard",
            "x-machinegun-not-owner: 1",
        ];
        self.answer("503 Service Unavailable", &headers, b"").await;
    }

    /// Says nothing, ever.
    pub fn hang_up(self) {}
}
