//! Which partition a machine's messages go to: the original's, or consumers would see a machine's events in two places.

use rdkafka::producer::Partitioner;

/// The golden ratio's fraction in 32 bits.
const GOLDEN: u32 = 0x9e37_79b9;

/// What the hash begins with, 13 times that: the original's way to say that it hashes bytes.
const OF_BYTES: u32 = 0x08d1_2e65;

/// The hash has 27 bits.
const RANGE: u32 = (1 << 27) - 1;

/// Chooses a message's partition by its key, of as many as the brokers say there are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ByKey;

impl Partitioner for ByKey {
    fn partition(&self, _: &str, key: Option<&[u8]>, partitions: i32, _: impl Fn(i32) -> bool) -> i32 {
        partition(key.unwrap_or_default(), partitions)
    }
}

/// The hash of the key, modulo the number of partitions.
pub fn partition(key: &[u8], partitions: i32) -> i32 {
    // 27 bits are never negative.
    hash(key) as i32 % partitions.max(1)
}

/// Erlang's `phash2` of a binary: Bob Jenkins' hash of 1996.
pub fn hash(key: &[u8]) -> u32 {
    let (mut a, mut b, mut c) = (GOLDEN, GOLDEN, OF_BYTES);
    // The last block may lack bytes, or be empty: they count as zeros, and the length takes the place of c's lowest.
    let (blocks, tail) = key.as_chunks::<12>();
    let word = |bytes: &[u8], at: usize| {
        (0..4).fold(0, |word, byte| word | u32::from(bytes.get(at + byte).copied().unwrap_or(0)) << (8 * byte))
    };
    for block in blocks {
        (a, b, c) = mix(a.wrapping_add(word(block, 0)), b.wrapping_add(word(block, 4)), c.wrapping_add(word(block, 8)));
    }
    // Ids have at most 1024 bytes and names 255, so the length fits; more of it would wrap, as there.
    let length = key.len() as u32;
    let (_, _, c) = mix(
        a.wrapping_add(word(tail, 0)),
        b.wrapping_add(word(tail, 4)),
        c.wrapping_add(length).wrapping_add(word(tail, 8) << 8),
    );
    c & RANGE
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> 13);
    b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << 8);
    c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> 13);
    a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> 12);
    b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << 16);
    c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> 5);
    a = a.wrapping_sub(b).wrapping_sub(c) ^ (c >> 3);
    b = b.wrapping_sub(c).wrapping_sub(a) ^ (a << 10);
    c = c.wrapping_sub(a).wrapping_sub(b) ^ (b >> 15);
    (a, b, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_they_did() {
        for (key, expected) in [
            (&b"NS 1"[..], 109_381_540),
            (b"a b", 117_379_430),
            (b"mg_test_ns machine-1", 32_178_383),
            (b"0123456789ab", 115_360_506),
            (b"0123456789abc", 67_923_675),
            (b"invoice 2QWErtyUIop", 123_241_681),
            (b"payproc/tags \x00\xff\xfe", 95_618_315),
            ("NS \u{1f620}\u{1f4a2}".as_bytes(), 37_805_557),
        ] {
            assert_eq!(hash(key), expected, "{key:?}");
        }
    }

    #[test]
    fn a_partition_is_one_of_those_there_are() {
        for partitions in [-1, 0, 1] {
            assert_eq!(partition(b"NS 1", partitions), 0);
        }
        assert_eq!(partition(b"NS 1", 64), 109_381_540 % 64);
    }
}
