//! A connection that breaks when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Stands before a service and passes everything on.
pub struct Proxy {
    pub endpoint: String,
    mode: Arc<Mode>,
    requests: Arc<AtomicU64>,
    down: CancellationToken,
}

/// What goes wrong, and how often.
#[derive(Default)]
struct Mode {
    fault: AtomicU8,
    times: AtomicUsize,
    /// So often it goes well before.
    spared: AtomicUsize,
    halved: AtomicU64,
}

const PASS: u8 = 0;
const LOSE_ANSWER: u8 = 1;
const LOSE_REQUEST: u8 = 2;
const THROTTLE: u8 = 3;
const FAIL: u8 = 4;
const HANG: u8 = 5;
const HALVE_ANSWER: u8 = 6;

// === impl Mode ===

impl Mode {
    fn set(&self, fault: u8, spared: usize, times: usize) {
        self.times.store(times, Ordering::SeqCst);
        self.spared.store(spared, Ordering::SeqCst);
        self.fault.store(fault, Ordering::SeqCst);
    }

    /// Whether this is what goes wrong now.
    fn take(&self, fault: u8) -> bool {
        let taken = self.fault.load(Ordering::SeqCst) == fault;
        let spare = |spared: usize| spared.checked_sub(1);
        if taken && self.spared.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spare).is_ok() {
            return false;
        }
        if taken && self.times.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.fault.store(PASS, Ordering::SeqCst);
        }
        taken
    }
}

// === impl Proxy ===

impl Proxy {
    pub async fn before(service: &str) -> Self {
        let service: SocketAddr =
            service.trim_start_matches("http://").parse().expect("these tests need a service at a plain address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (mode, down) = (Arc::<Mode>::default(), CancellationToken::new());
        let requests = Arc::new(AtomicU64::new(0));
        let (of_connections, counted, until) = (mode.clone(), requests.clone(), down.clone());
        tokio::spawn(until.run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, service, of_connections.clone(), counted.clone()));
            }
        }));
        Self { endpoint, mode, requests, down }
    }

    /// So many requests came so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// The next answer is cut off: its request was passed on, and worked off.
    pub fn lose_next_answer(&self) {
        self.lose_answers(1);
    }

    /// As often as a client tries, say.
    pub fn lose_answers(&self, times: usize) {
        self.mode.set(LOSE_ANSWER, 0, times);
    }

    /// The connection is cut at the next request, which goes nowhere.
    pub fn lose_next_request(&self) {
        self.lose_requests(1);
    }

    pub fn lose_requests(&self, times: usize) {
        self.mode.set(LOSE_REQUEST, 0, times);
    }

    /// The next request is answered as a throttled table does, and goes nowhere.
    pub fn throttle_next(&self) {
        self.throttle(1);
    }

    pub fn throttle(&self, times: usize) {
        self.mode.set(THROTTLE, 0, times);
    }

    /// The next request is answered as a table does that fails in the middle, and goes nowhere.
    pub fn fail_next(&self) {
        self.fail(1);
    }

    pub fn fail(&self, times: usize) {
        self.mode.set(FAIL, 0, times);
    }

    /// The next requests are taken, go nowhere, and are never answered.
    pub fn hang(&self, times: usize) {
        self.mode.set(HANG, 0, times);
    }

    /// So many requests are answered, and all behind them hang.
    pub fn hang_after(&self, answered: usize) {
        self.mode.set(HANG, answered, usize::MAX);
    }

    /// The next answer ends behind its head: its body never comes.
    pub fn halve_next_answer(&self) {
        self.mode.set(HALVE_ANSWER, 0, 1);
    }

    /// So many answers ended so.
    pub fn halved(&self) -> u64 {
        self.mode.halved.load(Ordering::SeqCst)
    }

    /// Nothing goes wrong any more.
    pub fn mend(&self) {
        self.mode.set(PASS, 0, 0);
    }

    /// Nothing listens any more.
    pub fn go_down(&self) {
        self.down.cancel();
    }
}

async fn pass(mut client: TcpStream, service: SocketAddr, mode: Arc<Mode>, requests: Arc<AtomicU64>) {
    let Ok(mut server) = TcpStream::connect(service).await else { return };
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let take = |fault| mode.take(fault);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read.inspect(|length| {
                requests.fetch_add(u64::from(asked[..*length].starts_with(b"POST ")), Ordering::SeqCst);
            }) {
                Ok(length) if length > 0 && take(THROTTLE) => {
                    let _ = client.write_all(answer("400 Bad Request", "ThrottlingException").as_bytes()).await;
                    return;
                }
                Ok(length) if length > 0 && take(FAIL) => {
                    let _ = client.write_all(answer("500 Internal Server Error", "InternalServerError").as_bytes()).await;
                    return;
                }
                Ok(length) if length > 0 && take(HANG) => {
                    while client.read(&mut asked).await.is_ok_and(|length| length > 0) {}
                    return;
                }
                Ok(length) if length > 0 && !take(LOSE_REQUEST) => {
                    if server.write_all(&asked[..length]).await.is_err() { return }
                }
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(length) if length > 0 && take(HALVE_ANSWER) => {
                    let head = answered[..length].windows(4).position(|end| end == b"\r\n\r\n").map_or(length, |at| at + 4);
                    let _ = client.write_all(&answered[..head]).await;
                    mode.halved.fetch_add(1, Ordering::SeqCst);
                    while client.read(&mut asked).await.is_ok_and(|length| length > 0) {}
                    return;
                }
                Ok(length) if length > 0 && !take(LOSE_ANSWER) => {
                    if client.write_all(&answered[..length]).await.is_err() { return }
                }
                _ => return,
            },
        }
    }
}

fn answer(status: &str, kind: &str) -> String {
    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{kind}","message":"not now"}}"#);
    let head = "content-type: application/x-amz-json-1.0\r\nconnection: close";
    format!("HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}
