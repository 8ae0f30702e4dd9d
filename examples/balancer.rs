//! A balancer for trying out several instances on one host: `balancer LISTEN BACKEND...`, each `host:port`.
//!
//! Each connection goes to the next backend that is ready, bytes pass as they are. Nothing for production: there, any
//! balancer that asks `/healthz/readiness` will do.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long a backend has to say that it is ready.
const READY_WITHIN: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next();
    let backends: Vec<String> = arguments.collect();
    let Some(listen) = listen.filter(|_| !backends.is_empty()) else {
        eprintln!("usage: balancer LISTEN BACKEND...");
        return ExitCode::FAILURE;
    };
    let listener = match TcpListener::bind(&listen).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("balancer: can't listen on {listen}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match listener.local_addr() {
        Ok(address) => println!("{address}"),
        Err(_) => println!("{listen}"),
    }
    let (backends, next) = (Arc::new(backends), Arc::new(AtomicUsize::new(0)));
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (backends, next) = (backends.clone(), next.clone());
        tokio::spawn(pass(client, backends, next));
    }
}

async fn pass(mut client: TcpStream, backends: Arc<Vec<String>>, next: Arc<AtomicUsize>) {
    for _ in 0..backends.len() {
        let backend = &backends[next.fetch_add(1, Ordering::Relaxed) % backends.len()];
        if !matches!(timeout(READY_WITHIN, is_ready(backend)).await, Ok(Ok(true))) {
            continue;
        }
        if let Ok(mut server) = TcpStream::connect(backend).await {
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            // However it ends, both sides know.
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

async fn is_ready(backend: &str) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(backend).await?;
    let request = format!("GET /healthz/readiness HTTP/1.1\r\nhost: {backend}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(status.ends_with(b" 200"))
}
