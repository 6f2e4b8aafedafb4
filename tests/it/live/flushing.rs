//! An origin that writes one body, flush by flush, as it is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

/// It stops when dropped.
pub(super) struct Flushing {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    lengths: mpsc::Sender<usize>,
    serving: JoinHandle<()>,
}

impl Flushing {
    /// It answers every request with a body of chunks; the first one gets what is flushed.
    pub(super) async fn start() -> Flushing {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (lengths, flushed) = mpsc::channel(1);
        let (counted, flushed) = (requests.clone(), Arc::new(Mutex::new(flushed)));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, counted.clone(), flushed.clone()));
            }
        });
        Flushing { address, requests, lengths, serving }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How often it was asked.
    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Writes the next bytes, as one chunk.
    pub(super) async fn flush(&self, length: usize) {
        self.lengths.send(length).await.unwrap();
    }

    /// Ends the body.
    pub(super) async fn end(&self) {
        self.flush(0).await;
    }

    /// The bytes of its body.
    pub(super) fn bytes(start: usize, length: usize) -> Vec<u8> {
        (start..start + length).map(|at| (at % 251) as u8).collect()
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    requests: Arc<AtomicUsize>,
    flushed: Arc<Mutex<mpsc::Receiver<usize>>>,
) -> Option<()> {
    stream.set_nodelay(true).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    requests.fetch_add(1, Ordering::Relaxed);
    let answer =
        b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(answer).await.ok()?;
    let mut flushed = flushed.lock().await;
    let mut start = 0;
    while let Some(length) = flushed.recv().await {
        let mut chunk = format!("{length:x}\r\n").into_bytes();
        chunk.extend(Flushing::bytes(start, length));
        chunk.extend_from_slice(b"\r\n");
        stream.write_all(&chunk).await.ok()?;
        start += length;
        if length == 0 {
            break;
        }
    }
    Some(())
}
