//! A connection's socket, with the bounds that a client can be held to.
//!
//! The timers live here, below HTTP, because only here is it known whether a client is silent. A timer is touched only
//! when a read or write has to wait: a request that arrives in one piece arms none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::head_scan::HeadScan;
use super::settings::ServerSettings;
use super::watch::{Phase, Watch};

/// How long a closed connection still listens to a client that is sending, so that the last reply is not lost to a
/// connection reset.
const LINGER: Duration = Duration::from_secs(1);

const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[derive(Debug)]
pub(super) struct Stream {
    socket: TcpStream,
    watch: Arc<Watch>,
    header_read: Duration,
    idle: Duration,
    body_read: Duration,
    write: Duration,
    whole: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    /// The watch's value that the timer was set for.
    armed: Option<u32>,
    write_timer: Option<Pin<Box<Sleep>>>,
    least_pace: u64,
    /// Of the body that is coming, and of the reply that is being taken, once either has made us wait.
    coming: Option<Pace>,
    going: Option<Pace>,
    /// Of the exchange that is under way.
    exchange: Option<Pin<Box<Sleep>>>,
    head: HeadScan,
    lingering: bool,
}

/// How fast a client gives or takes, on the whole.
#[derive(Clone, Copy, Debug)]
struct Pace {
    since: Instant,
    bytes: u64,
}

// === impl Pace ===

impl Pace {
    fn begin() -> Self {
        Self { since: Instant::now(), bytes: 0 }
    }

    /// How long the client may be silent now: not longer than `silence`, nor than its pace since the beginning leaves.
    fn patience(&self, silence: Duration, least: u64) -> Duration {
        let earned = Duration::from_millis(self.bytes.saturating_mul(1_000) / least.max(1));
        let left = silence.saturating_add(earned).saturating_sub(self.since.elapsed());
        left.min(silence)
    }
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(socket: TcpStream, watch: Arc<Watch>, settings: &ServerSettings) -> Self {
        Self {
            socket,
            watch,
            header_read: settings.header_read_timeout,
            idle: settings.idle_timeout,
            body_read: settings.body_read_timeout,
            write: settings.write_timeout,
            whole: settings.exchange_timeout,
            timer: None,
            armed: None,
            write_timer: None,
            least_pace: settings.least_pace,
            coming: None,
            going: None,
            exchange: None,
            head: HeadScan::default(),
            lingering: false,
        }
    }

    /// Leaves the client less time to ask for something.
    pub(super) fn hurry(&mut self, time: Duration) {
        self.header_read = self.header_read.min(time);
    }

    fn arrived(&mut self, bytes: &[u8]) {
        match self.watch.phase() {
            Phase::Fresh | Phase::Idle => {
                self.watch.enter(Phase::Head);
                self.coming = None;
                self.head = HeadScan::default();
                self.scan(bytes);
                self.exchange = self.whole.map(|time| Box::pin(tokio::time::sleep(time)));
            }
            Phase::Head => self.scan(bytes),
            // Entered again, for the next silence is a new one.
            Phase::Body => {
                if let Some(coming) = &mut self.coming {
                    coming.bytes += bytes.len() as u64;
                }
                self.watch.enter(Phase::Body);
            }
            Phase::Busy | Phase::Skip => {}
        }
    }

    fn scan(&mut self, bytes: &[u8]) {
        self.head.feed(bytes);
        self.watch.note_ambiguous_length(self.head.is_ambiguous());
    }

    fn sleep(&mut self, time: Duration) {
        match &mut self.timer {
            // A monotonic timer of the runtime: it bounds a wait on a socket, and decides nothing else.
            Some(timer) => timer.as_mut().reset(Instant::now() + time),
            None => self.timer = Some(Box::pin(tokio::time::sleep(time))),
        }
    }

    /// Ready with the phase in which the client was silent for too long.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<Phase> {
        let value = self.watch.value();
        let phase = Phase::of(value);
        if self.armed != Some(value) {
            let time = match phase {
                Phase::Busy => return Poll::Pending,
                Phase::Fresh | Phase::Head | Phase::Skip => self.header_read,
                Phase::Idle => self.idle,
                Phase::Body => self.coming.get_or_insert_with(Pace::begin).patience(self.body_read, self.least_pace),
            };
            // A timer takes a moment to fire, and the next byte may be faster.
            if time.is_zero() && phase == Phase::Body {
                return Poll::Ready(phase);
            }
            self.sleep(time);
            self.armed = Some(value);
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(context).map(|()| phase),
            None => Poll::Pending,
        }
    }

    /// The client is silent: ready once it was so for too long.
    fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_exchange(context) {
            return Poll::Ready(Err(error));
        }
        let phase = ready!(self.poll_timer(context));
        self.armed = None;
        match phase {
            // As if the client had closed.
            Phase::Fresh | Phase::Idle | Phase::Busy => Poll::Ready(Ok(())),
            Phase::Head => {
                // Nothing else can be on its way out here, and a reply this short always fits.
                let _ = self.socket.try_write(REQUEST_TIMEOUT);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "headers were too slow")))
            }
            Phase::Body | Phase::Skip => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the body stalled"))),
        }
    }

    /// Ready once the exchange takes longer than it may.
    fn poll_exchange(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        match &mut self.exchange {
            Some(timer) => ready!(timer.as_mut().poll(context)),
            None => return Poll::Pending,
        }
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the exchange took too long"))
    }

    fn taken(&mut self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        self.write_timer = None;
        if let (Some(going), Ok(written)) = (&mut self.going, &written) {
            going.bytes += *written as u64;
        }
        Poll::Ready(written)
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_exchange(context) {
            return Poll::Ready(Err(error));
        }
        self.watch.stalls(true);
        let time = self.going.get_or_insert_with(Pace::begin).patience(self.write, self.least_pace);
        if !time.is_zero() {
            let timer = self.write_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
            ready!(timer.as_mut().poll(context));
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no reply")))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.socket).poll_read(context, buffer) {
            Poll::Ready(Ok(())) => {
                let bytes = &buffer.filled()[before..];
                if !bytes.is_empty() {
                    self.arrived(bytes);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.poll_overdue(context),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.socket).poll_write(context, bytes) {
            Poll::Ready(written) => self.taken(written),
            Poll::Pending => self.poll_stalled(context),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.socket).poll_write_vectored(context, slices) {
            Poll::Ready(written) => self.taken(written),
            Poll::Pending => self.poll_stalled(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // IMPORTANT: while a read waits, HTTP reads no more when the phase changes, but it flushes each time that it has
        // worked. The timer that wakes it is set here; what it means is decided by the read that follows.
        if self.watch.phase() == Phase::Idle {
            // The reply is out.
            self.exchange = None;
        }
        // Not left to the read: there is none while a next request waits already.
        if let Poll::Ready(error) = self.poll_exchange(context) {
            return Poll::Ready(Err(error));
        }
        if self.poll_timer(context).is_ready() {
            context.waker().wake_by_ref();
        }
        // It flushes when nothing is left to be written.
        self.going = None;
        self.watch.stalls(false);
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.lingering {
            ready!(Pin::new(&mut self.socket).poll_shutdown(context))?;
            // A request that was refused for its headers is still in that phase.
            if !self.watch.is_unread() && self.watch.phase() != Phase::Head {
                return Poll::Ready(Ok(()));
            }
            self.lingering = true;
            self.sleep(LINGER);
        }
        let mut scratch = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = Pin::new(&mut self.socket).poll_read(context, &mut buffer);
            match read {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => break,
            }
            // A client that never stops sending is left all the same.
            if self.timer.as_mut().is_none_or(|timer| timer.as_mut().poll(context).is_ready()) {
                return Poll::Ready(Ok(()));
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(context).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_the_pace_may_be_silent_now_and_then_and_who_does_not_runs_out_of_patience() {
        let silence = Duration::from_secs(10);
        let after = |seconds, bytes| {
            let since =
                Instant::now().checked_sub(Duration::from_secs(seconds)).expect("a host that is up for so long");
            Pace { since, bytes }.patience(silence, 100).as_secs_f64().round()
        };
        assert_eq!(after(0, 0), 10.0);
        assert_eq!(after(4, 0), 6.0);
        assert_eq!(after(60, 6_000), 10.0, "it has kept up");
        assert_eq!(after(60, 5_500), 5.0);
        assert_eq!(after(60, 60), 0.0, "a byte a second");
    }
}
