//! The typed messages as the JSON that stands beside the golden bytes, both ways, and apart from the codec.

use bytes::Bytes;
use machinegun::wire::*;
use serde_json::{Map, Value as Json, json};

pub trait Meaning: Sized {
    fn from_json(json: &Json) -> Self;
    fn to_json(&self) -> Json;
}

pub fn unhex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0);
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Without the texts of doubles, which are for people.
pub fn plain(json: &Json) -> Json {
    match json {
        Json::Object(map) if map.contains_key("f64") => json!({ "f64": map["f64"] }),
        Json::Object(map) => map.iter().map(|(key, value)| (key.clone(), plain(value))).collect::<Map<_, _>>().into(),
        Json::Array(array) => array.iter().map(plain).collect(),
        other => other.clone(),
    }
}

macro_rules! structs {
    ($($name:ident { $($json:literal $field:ident $need:ident),* })*) => {$(
        impl Meaning for $name {
            fn from_json(json: &Json) -> Self {
                let map = json.as_object().expect(stringify!($name));
                let known: &[&str] = &[$($json),*];
                assert!(map.keys().all(|key| known.contains(&key.as_str())), "{}: {map:?}", stringify!($name));
                Self { $($field: structs!(@read $need map.get($json)),)* }
            }

            fn to_json(&self) -> Json {
                #[allow(unused_mut)]
                let mut map = Map::new();
                $(structs!(@write $need map, $json, &self.$field);)*
                map.into()
            }
        }
    )*};
    (@read r $json:expr) => { Meaning::from_json($json.expect("a required field")) };
    (@read o $json:expr) => { $json.map(Meaning::from_json) };
    // A direction that is not written is the default.
    (@read d $json:expr) => { $json.map_or(Direction::Forward, Meaning::from_json) };
    (@write o $map:ident, $json:literal, $field:expr) => {
        if let Some(value) = $field {
            $map.insert($json.to_owned(), value.to_json());
        }
    };
    (@write $need:ident $map:ident, $json:literal, $field:expr) => { $map.insert($json.to_owned(), $field.to_json()) };
}

macro_rules! unions {
    ($($name:ident { $($json:literal $variant:ident),* })*) => {$(
        impl Meaning for $name {
            fn from_json(json: &Json) -> Self {
                let map = json.as_object().expect(stringify!($name));
                assert_eq!(map.len(), 1);
                match map.iter().next().expect("one field") {
                    $((key, value) if key == $json => Self::$variant(Meaning::from_json(value)),)*
                    (key, _) => panic!("{key}"),
                }
            }

            fn to_json(&self) -> Json {
                match self {
                    $(Self::$variant(value) => json!({ $json: value.to_json() }),)*
                }
            }
        }
    )*};
}

structs! {
    StartParams { "ns" ns r, "id" id r, "a" a r }
    DescribedParams { "desc" desc r, "a" a r }
    DescriptorParams { "desc" desc r }
    SimpleRepairParams { "ns" ns r, "ref" r#ref r }
    RemoveParams { "ns" ns r, "id" id r }
    GetHistoryParams { "event_sink_id" event_sink_id r, "range" range r }
    NotifyResponse { "id" id r }
    Content { "format_version" format_version o, "data" data r }
    Event { "id" id r, "created_at" created_at r, "format_version" format_version o, "data" data r }
    MachineStatusWorking {}
    MachineStatusFailed { "reason" reason o }
    HistoryRange { "after" after o, "limit" limit o, "direction" direction d }
    Machine {
        "ns" ns r, "id" id r, "history" history r, "history_range" history_range r, "status" status o,
        "aux_state" aux_state o, "timer" timer o, "aux_state_legacy" aux_state_legacy o
    }
    MachineDescriptor { "ns" ns r, "ref" r#ref r, "range" range r }
    SetTimerAction { "timer" timer r, "range" range o, "timeout" timeout o }
    UnsetTimerAction {}
    TagAction { "tag" tag r }
    RemoveAction {}
    ComplexAction { "set_timer" set_timer o, "timer" timer o, "tag" tag o, "remove" remove o }
    MachineStateChange {
        "aux_state_legacy" aux_state_legacy o, "events_legacy" events_legacy o, "aux_state" aux_state o,
        "events" events o
    }
    MachineEvent { "ns" ns r, "id" id r, "event" event r }
    SinkEvent { "id" id r, "source_id" source_id r, "source_ns" source_ns r, "event" event r }
    InitSignal { "arg" arg r }
    TimeoutSignal {}
    NotificationSignal { "arg" arg r }
    SignalArgs { "signal" signal r, "machine" machine r }
    SignalResult { "change" change r, "action" action r }
    CallArgs { "arg" arg r, "machine" machine r }
    CallResult { "response" response r, "change" change r, "action" action r }
    RepairArgs { "arg" arg r, "machine" machine r }
    RepairResult { "response" response r, "change" change r, "action" action r }
    ModernizeEventResult { "event_payload" event_payload r }
    ProcessSignalParams { "a" a r }
    ProcessCallParams { "a" a r }
    ProcessRepairParams { "a" a r }
    ModernizeEventParams { "ev" ev r }
}

unions! {
    Timer { "timeout" Timeout, "deadline" Deadline }
    MachineStatus { "working" Working, "failed" Failed }
    Reference { "id" Id, "tag" Tag }
    TimerAction { "set_timer" Set, "unset_timer" Unset }
    Signal { "init" Init, "timeout" Timeout, "notification" Notification }
}

impl Meaning for Void {
    fn from_json(json: &Json) -> Self {
        assert!(json.is_null());
        Self
    }

    fn to_json(&self) -> Json {
        Json::Null
    }
}

impl Meaning for i32 {
    fn from_json(json: &Json) -> Self {
        i64::from_json(json).try_into().expect("32 bits")
    }

    fn to_json(&self) -> Json {
        json!(self)
    }
}

impl Meaning for i64 {
    fn from_json(json: &Json) -> Self {
        json.as_i64().expect("a number")
    }

    fn to_json(&self) -> Json {
        json!(self)
    }
}

impl Meaning for Bytes {
    fn from_json(json: &Json) -> Self {
        match json {
            Json::String(text) => text.clone().into(),
            other => unhex(other["bin"].as_str().expect("bytes")).into(),
        }
    }

    fn to_json(&self) -> Json {
        std::str::from_utf8(self).map_or_else(|_| json!({ "bin": hex(self) }), |text| json!(text))
    }
}

impl Meaning for Direction {
    fn from_json(json: &Json) -> Self {
        match json.as_str().expect("a symbol") {
            "forward" => Self::Forward,
            "backward" => Self::Backward,
            other => panic!("{other}"),
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Forward => json!("forward"),
            Self::Backward => json!("backward"),
        }
    }
}

impl<T: Meaning> Meaning for Vec<T> {
    fn from_json(json: &Json) -> Self {
        json.as_array().expect("a list").iter().map(T::from_json).collect()
    }

    fn to_json(&self) -> Json {
        self.iter().map(T::to_json).collect()
    }
}

impl<T: Meaning + Wire> Meaning for Encoded<T> {
    fn from_json(json: &Json) -> Self {
        let encode = |element: T| {
            let mut writer = Writer::default();
            element.write(&mut writer);
            writer.into_bytes()
        };
        Self::from_encoded(Vec::from_json(json).into_iter().map(encode).collect())
    }

    fn to_json(&self) -> Json {
        self.decoded().map(|element| element.expect("it was checked").to_json()).collect()
    }
}

impl Meaning for Value {
    fn from_json(json: &Json) -> Self {
        let map = json.as_object().expect("a value");
        assert_eq!(map.len(), 1);
        let (kind, json) = map.iter().next().expect("one variant");
        match kind.as_str() {
            "nl" => Self::nil(),
            "b" => Self::bool(json.as_bool().expect("a bool")),
            "i" => Self::int(i64::from_json(json)),
            "flt" => {
                let bits = u64::from_str_radix(json["f64"].as_str().expect("bits"), 16).expect("hex");
                if let Some(text) = json["text"].as_str() {
                    assert_eq!(text.parse::<f64>().expect("a number").to_bits(), bits);
                }
                Self::double(f64::from_bits(bits)).expect("finite")
            }
            "str" => Self::str(json.as_str().expect("a text")),
            "bin" => Self::bin(&unhex(json.as_str().expect("hex"))),
            "obj" => {
                let pairs = json.as_array().expect("pairs").iter();
                let pair = |pair: &Json| (Self::from_json(&pair[0]), Self::from_json(&pair[1]));
                Self::object(&pairs.map(pair).collect::<Vec<_>>())
            }
            "arr" => Self::array(&Vec::from_json(json)),
            other => panic!("{other}"),
        }
    }

    fn to_json(&self) -> Json {
        let mut bytes = &self.as_bytes()[..];
        let json = value(&mut bytes);
        assert!(bytes.is_empty());
        json
    }
}

/// Reads an encoded value that the peers wrote, so without fields that nobody knows.
fn value(bytes: &mut &[u8]) -> Json {
    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }
    fn number(bytes: &mut &[u8]) -> usize {
        take(bytes, 4).iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    }
    let head = take(bytes, 3);
    let json = match head {
        [12, 0, 1] => {
            assert_eq!(take(bytes, 1), [0]);
            json!({ "nl": {} })
        }
        [2, 0, 2] => json!({ "b": take(bytes, 1) != [0] }),
        [10, 0, 3] => json!({ "i": i64::from_be_bytes(take(bytes, 8).try_into().expect("8 bytes")) }),
        [4, 0, 4] => json!({ "flt": { "f64": hex(take(bytes, 8)) } }),
        [11, 0, 5] => {
            let size = number(bytes);
            json!({ "str": std::str::from_utf8(take(bytes, size)).expect("UTF-8") })
        }
        [11, 0, 6] => {
            let size = number(bytes);
            json!({ "bin": hex(take(bytes, size)) })
        }
        [13, 0, 7] => {
            assert_eq!(take(bytes, 2), [12, 12]);
            let pairs = (0..number(bytes)).map(|_| json!([value(bytes), value(bytes)])).collect::<Vec<_>>();
            json!({ "obj": pairs })
        }
        [15, 0, 8] => {
            assert_eq!(take(bytes, 1), [12]);
            let elements = (0..number(bytes)).map(|_| value(bytes)).collect::<Vec<_>>();
            json!({ "arr": elements })
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(take(bytes, 1), [0]);
    json
}
