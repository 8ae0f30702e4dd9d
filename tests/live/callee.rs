//! A processor or modernizer that the test answers for, question by question.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use machinegun::clock::Clock;
use machinegun::wire::{self, Exception, Method, Reader, Type};
use machinegun::woody::{Context, Error, MethodKind, Reply, Request, Server, ServerSettings, Service};
use tokio::sync::{mpsc, oneshot};

use super::PATIENCE;

pub struct Callee {
    pub url: String,
    asked: mpsc::Receiver<Asked>,
}

struct Asked {
    context: Context,
    name: Bytes,
    args: Reader,
    seqid: i32,
    reply: oneshot::Sender<Result<Reply, Error>>,
}

/// How it was asked.
pub struct Heard {
    pub context: Context,
    /// The ids of the fields of the machine that came with the question, as they came.
    pub machine_fields: Vec<i16>,
}

struct Ear(mpsc::Sender<Asked>);

// === impl Callee ===

impl Callee {
    pub fn listen(clock: &Clock) -> Self {
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let server = Server::bind(anywhere, ServerSettings::default(), clock.clone()).expect("a free port");
        let url = format!("http://{}/peer", server.local_addr());
        let (sender, asked) = mpsc::channel(100);
        tokio::spawn(server.route("/peer", Arc::new(Ear(sender))).serve(std::future::pending(), async {}));
        Self { url, asked }
    }

    async fn next<M: Method>(&mut self) -> (Asked, M::Args, Heard) {
        let asked = tokio::time::timeout(PATIENCE, self.asked.recv()).await.expect("a question in time");
        let asked = asked.expect("the callee lives");
        assert_eq!(asked.name, M::NAME.as_bytes(), "it was asked something else");
        let args = wire::read_args::<M>(&mut asked.args.clone()).expect("what this generation can read");
        let heard = Heard { context: asked.context.clone(), machine_fields: machine_fields(asked.args.clone()) };
        (asked, args, heard)
    }

    /// Answers the next question, which must be of this method and readable.
    pub async fn answer<M: Method>(&mut self, decide: impl FnOnce(M::Args) -> M::Success) -> Heard {
        let (asked, args, heard) = self.next::<M>().await;
        let body = wire::write_reply::<M>(asked.seqid, &Ok(decide(args))).expect("no exception");
        let _ = asked.reply.send(Ok(Reply::Result { body, business: None }));
        heard
    }

    pub async fn throw<M: Method>(&mut self, exception: Exception) {
        let (asked, ..) = self.next::<M>().await;
        let business = Some(exception.name());
        let body = wire::write_reply::<M>(asked.seqid, &Err(exception)).expect("a declared exception");
        let _ = asked.reply.send(Ok(Reply::Result { body, business }));
    }

    /// Is at fault over the next question.
    pub async fn fail<M: Method>(&mut self) {
        let (asked, ..) = self.next::<M>().await;
        let _ = asked.reply.send(Err(Error::unexpected("told to fail")));
    }

    #[track_caller]
    pub fn was_not_asked(&mut self) {
        assert!(self.asked.try_recv().is_err(), "it was asked");
    }
}

/// The machine stands in field 2 of the struct in field 1.
fn machine_fields(mut args: Reader) -> Vec<i16> {
    let mut ids = Vec::new();
    let Some((Type::Struct, 1)) = args.field().expect("arguments") else { return ids };
    while let Some((kind, id)) = args.field().expect("a field") {
        if (kind, id) != (Type::Struct, 2) {
            args.skip(kind).expect("a value");
            continue;
        }
        while let Some((kind, id)) = args.field().expect("a field") {
            ids.push(id);
            args.skip(kind).expect("a value");
        }
    }
    ids
}

#[async_trait]
impl Service for Ear {
    fn method(&self, _: &[u8]) -> Option<MethodKind> {
        Some(MethodKind::Call)
    }

    async fn handle(&self, request: Request) -> Result<Reply, Error> {
        let Request { context, name, args, seqid, .. } = request;
        let (reply, answer) = oneshot::channel();
        self.0.send(Asked { context, name, args, seqid, reply }).await.expect("the test goes on");
        answer.await.unwrap_or_else(|_| Err(Error::unexpected("the test could not answer")))
    }
}
