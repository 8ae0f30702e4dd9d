//! Modernize, with a modernizer behind a port.

mod live;

use bytes::Bytes;
use live::processor::{change, content, to_call, to_signal};
use live::{Callee, Failure, Live, NOW, descriptor, id, namespace, of, refused, start, to};
use machinegun::clock::Clock;
use machinegun::config::{ModernizerSettings, ProcessorSettings};
use machinegun::wire::{
    Call, Content, DescriptorParams, Event, Exception, GetMachine, HistoryRange, Modernize, ModernizeEvent,
    ModernizeEventResult, ProcessCall, ProcessSignal, Start, Value, Void,
};

const PRESENT: i32 = 3;

struct World {
    live: Live,
    processor: Callee,
    modernizer: Callee,
}

// === impl World ===

impl World {
    /// With a machine of these events.
    async fn start(events: Vec<Content>) -> Self {
        let clock = Clock::manual(NOW);
        let (mut processor, modernizer) = (Callee::listen(&clock.0), Callee::listen(&clock.0));
        let mut namespace = namespace(&processor.url);
        namespace.modernizer = Some(ModernizerSettings {
            current_format_version: PRESENT,
            handler: ProcessorSettings::new(modernizer.url.clone()),
        });
        let live = Live::start(clock, vec![namespace]).await;
        let answer = processor.answer::<ProcessSignal>(|_| to_signal(change(events)));
        assert_eq!(tokio::join!(live.ask::<Start>(start("ID", "")), answer).0, Ok(Void));
        Self { live, processor, modernizer }
    }

    async fn history(&self) -> Vec<Event> {
        let machine = self.live.ask::<GetMachine>(of(id("ID"))).await.expect("a machine");
        machine.history.decoded().map(|event| event.expect("an event")).collect()
    }

    /// Modernizes while the modernizer answers with these, event by event.
    async fn modernize(&mut self, answers: Vec<Content>) -> Result<Void, Failure> {
        let modernizer = &mut self.modernizer;
        let answering = async move {
            for event_payload in answers {
                modernizer.answer::<ModernizeEvent>(|_| ModernizeEventResult { event_payload }).await;
            }
        };
        let answer = tokio::join!(self.live.ask::<Modernize>(of(id("ID"))), answering).0;
        self.modernizer.was_not_asked();
        answer
    }
}

fn contents(events: &[Event]) -> Vec<Content> {
    events.iter().map(|it| Content { format_version: it.format_version, data: it.data.clone() }).collect()
}

#[tokio::test]
async fn old_events_are_modernized_and_keep_their_place_and_time() {
    let data = Value::object(&[(Value::int(-1), Value::array(&[Value::bin(b"\xff\0"), Value::nil()]))]);
    let modern = Content { format_version: Some(PRESENT), data: data.clone() };
    let old = vec![
        Content { format_version: None, data: data.clone() },
        content(Some(1), "one"),
        content(Some(PRESENT), "present"),
        content(Some(PRESENT + 1), "future"),
    ];
    let mut world = World::start(old).await;
    world.live.advance(60);
    let before = world.history().await;

    let modernizer = &mut world.modernizer;
    let answering = async {
        for (event, answer) in before[..2].iter().zip([content(Some(2), "lifted"), modern.clone()]) {
            let answer = modernizer.answer::<ModernizeEvent>(|asked| {
                assert_eq!((&asked.ev.ns[..], &asked.ev.id[..], &asked.ev.event), (&b"NS"[..], &b"ID"[..], event));
                ModernizeEventResult { event_payload: answer }
            });
            answer.await;
        }
    };
    assert_eq!(tokio::join!(world.live.ask::<Modernize>(of(id("ID"))), answering).0, Ok(Void));

    let after = world.history().await;
    let expected =
        [content(Some(2), "lifted"), modern, content(Some(PRESENT), "present"), content(Some(PRESENT + 1), "future")];
    assert_eq!(contents(&after), expected);
    let place = |event: &Event| (event.id, event.created_at.clone());
    assert!(after.iter().map(place).eq(before.iter().map(place)));

    // What came back still too old is asked about again; a processor sees the new history.
    assert_eq!(world.modernize(vec![content(Some(PRESENT), "done")]).await, Ok(Void));
    assert_eq!(world.modernize(vec![]).await, Ok(Void));
    let call = world.processor.answer::<ProcessCall>(|asked| {
        let first = asked.a.machine.history.decoded().next().expect("events").expect("an event");
        assert_eq!(first.data, Value::str("done"));
        to_call(change(vec![content(None, "new")]))
    });
    assert_eq!(tokio::join!(world.live.ask::<Call>(to(id("ID"), "")), call).0, Ok(Value::str("done")));
    let ids: Vec<_> = world.history().await.iter().map(|event| event.id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    world.live.stop().await;
}

#[tokio::test]
async fn only_the_range_that_was_asked_for_is_modernized() {
    let mut world = World::start(vec![content(None, "1"), content(None, "2"), content(None, "3")]).await;
    let mut desc = descriptor(id("ID"));
    desc.range = HistoryRange { after: Some(1), limit: Some(1), ..HistoryRange::ALL };
    let answer = world.modernizer.answer::<ModernizeEvent>(|asked| {
        assert_eq!(asked.ev.event.id, 2);
        ModernizeEventResult { event_payload: content(Some(PRESENT), "second") }
    });
    assert_eq!(tokio::join!(world.live.ask::<Modernize>(DescriptorParams { desc }), answer).0, Ok(Void));
    let expected = [content(None, "1"), content(Some(PRESENT), "second"), content(None, "3")];
    assert_eq!(contents(&world.history().await), expected);
    world.live.stop().await;
}

#[tokio::test]
async fn a_modernizer_is_called_as_a_direct_child_of_the_request_with_its_deadline_or_none() {
    let mut world = World::start(vec![content(None, "old")]).await;
    for (text, deadline) in [(None, None), (Some("2030-01-01T00:00:42.5Z"), Some(NOW + 42_500))] {
        let headers: Vec<_> = text.map(|text| ("woody.deadline", text)).into_iter().collect();
        world.live.with_headers(&[&headers[..], &[("woody.meta.user-identity.id", "u1")]].concat());
        let same = |_| ModernizeEventResult { event_payload: content(None, "old") };
        let answer = world.modernizer.answer::<ModernizeEvent>(same);
        let (answer, heard) = tokio::join!(world.live.ask::<Modernize>(of(id("ID"))), answer);
        assert_eq!(answer, Ok(Void));
        let context = heard.context;
        assert_eq!((&context.trace_id[..], &context.parent_id[..]), (&b"trace"[..], &b"span"[..]));
        assert!(!context.span_id.is_empty() && context.span_id != "span");
        assert_eq!(context.deadline, deadline);
        assert_eq!(context.meta, [(Bytes::from("user-identity.id"), Bytes::from("u1"))]);
    }
    world.live.stop().await;
}

#[tokio::test]
async fn a_modernizer_that_fails_is_an_error_and_nothing_is_stored() {
    let mut world = World::start(vec![content(Some(1), "1"), content(Some(1), "2")]).await;
    let modernizer = &mut world.modernizer;
    let answering = async {
        let lifted = |_| ModernizeEventResult { event_payload: content(Some(PRESENT), "lifted") };
        modernizer.answer::<ModernizeEvent>(lifted).await;
        modernizer.fail::<ModernizeEvent>().await;
    };
    assert_eq!(tokio::join!(world.live.ask::<Modernize>(of(id("ID"))), answering).0, Err(refused(500)));
    assert_eq!(contents(&world.history().await), [content(Some(1), "1"), content(Some(1), "2")]);
    world.live.stop().await;
}

#[tokio::test]
async fn a_lower_version_or_none_is_an_error_and_nothing_is_stored() {
    let mut world = World::start(vec![content(Some(1), "1"), content(Some(2), "2")]).await;
    for wrong in [content(Some(1), "lower"), content(None, "none")] {
        let answers = vec![content(Some(PRESENT), "lifted"), wrong];
        assert_eq!(world.modernize(answers).await, Err(refused(500)));
        assert_eq!(contents(&world.history().await), [content(Some(1), "1"), content(Some(2), "2")]);
    }
    // The same version leaves an event as it is.
    assert_eq!(world.modernize(vec![content(Some(1), "same"), content(Some(PRESENT), "lifted")]).await, Ok(Void));
    assert_eq!(contents(&world.history().await), [content(Some(1), "1"), content(Some(PRESENT), "lifted")]);
    world.live.stop().await;
}

#[tokio::test]
async fn modernize_finds_no_namespace_that_has_no_modernizer() {
    let clock = Clock::manual(NOW);
    let live = Live::start(clock, vec![namespace("http://127.0.0.1:1/nobody")]).await;
    let missing = Err(Failure::Thrown(Exception::NamespaceNotFound));
    assert_eq!(live.ask::<Modernize>(of(id("ID"))).await, missing);
    live.stop().await;
    let world = World::start(vec![]).await;
    let missing = Err(Failure::Thrown(Exception::MachineNotFound));
    assert_eq!(world.live.ask::<Modernize>(of(id("nobody"))).await, missing);
    world.live.stop().await;
}
