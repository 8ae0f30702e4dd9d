//! Encoded samples of every declared type, made from its schema alone and a string of choices.

use machinegun::wire::schema::{Field, Schema};

use crate::wire_types::{Declaration, Signature};

/// Choices, as many as are asked for: zeros when the bytes are used up, and zeros make small samples.
pub struct Choices<'a>(pub &'a [u8]);

/// A sample as we write it, and as a peer of another build might send it.
#[derive(Default)]
pub struct Sample {
    pub plain: Vec<u8>,
    /// Fields out of order, twice, unknown, or of another type; what is opaque stays as it is.
    pub noisy: Vec<u8>,
}

pub struct Generator {
    pub types: Vec<Declaration>,
}

impl Choices<'_> {
    pub fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.next()) % bound
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next())
    }
}

fn wire_type(kind: &str) -> u8 {
    match kind {
        "bool" => 2,
        "double" => 4,
        "i32" | "Direction" => 8,
        "i64" => 10,
        "string" => 11,
        _ if kind.starts_with("list<") => 15,
        _ => 12,
    }
}

fn head(kind: u8, id: i16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![kind, high, low]
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

fn double(choices: &mut Choices) -> [u8; 8] {
    let double = f64::from_be_bytes(choices.bytes());
    if double.is_finite() { double } else { -0.0 }.to_be_bytes()
}

/// A value of any wire type.
fn unknown(choices: &mut Choices, depth: usize) -> (u8, Vec<u8>) {
    let kinds = [2, 3, 4, 6, 8, 10, 11, 12, 13, 14, 15];
    let kind = kinds[choices.below(if depth == 0 { 7 } else { kinds.len() })];
    (kind, unknown_of(kind, choices, depth))
}

fn unknown_of(kind: u8, choices: &mut Choices, depth: usize) -> Vec<u8> {
    let repeat = |kind: u8, count: usize, choices: &mut Choices| {
        (0..count).flat_map(|_| unknown_of(kind, choices, depth.saturating_sub(1))).collect::<Vec<_>>()
    };
    let scalars = [2, 3, 4, 6, 8, 10, 11];
    match kind {
        2 | 3 => vec![choices.next()],
        4 => double(choices).to_vec(),
        6 => choices.bytes::<2>().to_vec(),
        8 => choices.bytes::<4>().to_vec(),
        10 => choices.bytes::<8>().to_vec(),
        11 => sized(&choices.bytes::<3>()),
        12 => {
            let mut all = Vec::new();
            for _ in 0..choices.below(3) {
                let (kind, bytes) = unknown(choices, depth.saturating_sub(1));
                all.extend(head(kind, i16::from(choices.next())));
                all.extend(bytes);
            }
            all.push(0);
            all
        }
        13 => {
            let (key, value) = (scalars[choices.below(7)], unknown(choices, depth.saturating_sub(1)).0);
            let count = choices.below(3);
            let mut all = vec![key, value, 0, 0, 0, count as u8];
            for _ in 0..count {
                all.extend(repeat(key, 1, choices));
                all.extend(repeat(value, 1, choices));
            }
            all
        }
        _ => {
            let element = unknown(choices, depth.saturating_sub(1)).0;
            let count = choices.below(3);
            let mut all = vec![element, 0, 0, 0, count as u8];
            all.extend(repeat(element, count, choices));
            all
        }
    }
}

fn value(choices: &mut Choices, depth: usize) -> Vec<u8> {
    let variant = choices.below(if depth == 0 { 6 } else { 8 });
    let mut field = match variant {
        0 => [head(12, 1), vec![0]].concat(),
        1 => [head(2, 2), vec![choices.next() % 2]].concat(),
        2 => [head(10, 3), choices.bytes::<8>().to_vec()].concat(),
        3 => [head(4, 4), double(choices).to_vec()].concat(),
        4 => [head(11, 5), sized("ключ".as_bytes())].concat(),
        5 => [head(11, 6), sized(&choices.bytes::<2>())].concat(),
        6 => {
            let count = choices.below(4);
            let mut all = [head(13, 7), vec![12, 12, 0, 0, 0, count as u8]].concat();
            (0..2 * count).for_each(|_| all.extend(value(choices, depth - 1)));
            all
        }
        _ => {
            let count = choices.below(4);
            let mut all = [head(15, 8), vec![12, 0, 0, 0, count as u8]].concat();
            (0..count).for_each(|_| all.extend(value(choices, depth - 1)));
            all
        }
    };
    // A value keeps even the fields that nobody knows.
    if choices.below(8) == 7 {
        let (kind, bytes) = unknown(choices, 2);
        field = [head(kind, 50), bytes, field].concat();
    }
    field.push(0);
    field
}

impl Generator {
    fn lookup(&self, file: &str, name: &str) -> &Declaration {
        let named = |declared: &&Declaration| declared.schema.name == name;
        let local = self.types.iter().find(|declared| named(declared) && declared.file == file);
        local.or_else(|| self.types.iter().find(named)).unwrap_or_else(|| panic!("{name} is not declared"))
    }

    pub fn args(&self, signature: &Signature, choices: &mut Choices) -> Sample {
        self.sample("state_processing", &signature.args, choices)
    }

    pub fn reply(&self, signature: &Signature, choices: &mut Choices) -> Sample {
        let mut fields = match signature.success.as_str() {
            "void" => vec![],
            kind => vec![(0, kind.to_owned())],
        };
        fields.extend(signature.throws.iter().map(|(id, name)| (*id, (*name).to_owned())));
        let field = |(id, kind): (i16, String)| Field { id, name: "result", need: "optional", kind, default: None };
        let fields: Vec<_> = fields.into_iter().map(field).collect();
        let schema = Schema { name: "reply", union: !fields.is_empty(), fields };
        self.sample("state_processing", &schema, choices)
    }

    pub fn sample(&self, file: &str, schema: &Schema, choices: &mut Choices) -> Sample {
        let chosen = choices.below(schema.fields.len().max(1));
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        for (at, field) in schema.fields.iter().enumerate() {
            let present = match field.need {
                _ if schema.union => at == chosen,
                "optional" => choices.below(2) == 1,
                _ => true,
            };
            if !present {
                continue;
            }
            let kind = wire_type(&field.kind);
            let sample = self.kind(file, &field.kind, choices);
            plain.extend([head(kind, field.id), sample.plain].concat());
            let mut part = [head(kind, field.id), sample.noisy].concat();
            if !schema.union && choices.below(4) == 3 {
                part.extend([head(kind, field.id), self.kind(file, &field.kind, choices).noisy].concat());
            }
            if choices.below(4) == 3 {
                let (other, bytes) = unknown(choices, 2);
                if other != kind {
                    part = [head(other, field.id), bytes, part].concat();
                }
            }
            parts.insert(choices.below(parts.len() + 1), part);
        }
        for _ in 0..choices.below(3) {
            let (kind, bytes) = unknown(choices, 3);
            let id = i16::from_be_bytes([choices.next() | 0x40, choices.next()]);
            parts.insert(choices.below(parts.len() + 1), [head(kind, id), bytes].concat());
        }
        plain.push(0);
        parts.push(vec![0]);
        Sample { plain, noisy: parts.concat() }
    }

    fn kind(&self, file: &str, kind: &str, choices: &mut Choices) -> Sample {
        let both = |bytes: Vec<u8>| Sample { plain: bytes.clone(), noisy: bytes };
        match kind {
            "bool" => both(vec![choices.next() % 2]),
            "i32" => both(choices.bytes::<4>().to_vec()),
            "i64" => both(choices.bytes::<8>().to_vec()),
            "string" => both(sized(&choices.bytes::<4>())),
            "Direction" => both(vec![0, 0, 0, choices.next() % 2 + 1]),
            "Value" => both(value(choices, 3)),
            _ => match kind.strip_prefix("list<").and_then(|kind| kind.strip_suffix('>')) {
                Some(element) => {
                    let count = choices.below(4);
                    let begin = vec![wire_type(element), 0, 0, 0, count as u8];
                    let mut list = both(begin);
                    for _ in 0..count {
                        let sample = self.kind(file, element, choices);
                        list.plain.extend(&sample.plain);
                        // Histories and ledgers keep their elements as they came.
                        let kept = matches!(element, "Event" | "SinkEvent");
                        list.noisy.extend(if kept { &sample.plain } else { &sample.noisy });
                    }
                    list
                }
                None => {
                    let declared = self.lookup(file, kind);
                    self.sample(declared.file, &declared.schema, choices)
                }
            },
        }
    }
}
