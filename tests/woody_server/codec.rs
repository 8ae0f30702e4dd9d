//! S63 to S81: what the reader takes as arguments.

use crate::peer::{Answer, Request, hex, text};
use crate::world::{World, world};

/// Echo of a record: its fields in hex, without the stop byte.
async fn echo(world: &World, fields: &str) -> Answer {
    world.exchange(&Request::new().call("Echo", &format!("0c0001{fields}0000"))).await
}

const NAME: &str = "0b0001000000016e";
/// The defaults that are filled in, and the ends of record and result.
const REST: &str = "0400093ff80000000000000b000a0000000464666c740000";

#[track_caller]
fn echoed(answer: &Answer, fields: &str) {
    answer.is_result(&format!("8001000200000004 4563686f 00000000 0c0000 {fields} {REST}").replace(' ', ""));
}

#[track_caller]
fn refused(answer: &Answer) {
    answer.is_error_like(400, "Result Unexpected", "thrift decode error: ");
}

#[tokio::test]
async fn s63_unknown_fields_are_skipped() {
    let world = world().await;
    let unknown = [
        "0b0007000000017a",
        "0c00070b0001000000017a00",
        "0d00070b08000000010000000161 00000001",
        "0f00070a000000010000000000000001",
        "0e00070b0000000100000001 61",
        "02000701",
        "03000701",
        "0600070001",
        "08000700000001",
        "0a00070000000000000001",
        "0400073ff8000000000000",
    ];
    for field in unknown {
        let answer = world.exchange(&Request::new().call("Str", &format!("{field}{}", text("hi")))).await;
        answer.is_result(crate::peer::STR_REPLY);
    }
}

#[tokio::test]
async fn s64_types_that_nobody_may_send() {
    let world = world().await;
    for kind in ["05", "10", "01"] {
        refused(&world.exchange(&Request::new().call("Str", &format!("{kind}0007{}", text("hi")))).await);
    }
}

#[tokio::test]
async fn s65_a_field_of_another_type_is_missing() {
    refused(&world().await.exchange(&Request::new().call("Str", "0800010000000100")).await);
}

#[tokio::test]
async fn s66_the_first_of_two_wins() {
    let args = "0b0001000000056669727374 0b0001000000067365636f6e64 00";
    let answer = world().await.exchange(&Request::new().call("Str", args)).await;
    answer.is_result("8001000200000003537472000000000b00000000000566697273 7400".replace(' ', "").as_str());
}

#[tokio::test]
async fn s67_s68_lengths_that_lie() {
    let world = world().await;
    for args in ["0b000100000064616263", "0b0001ffffffff00"] {
        refused(&world.exchange(&Request::new().call("Str", args)).await);
    }
}

#[tokio::test]
async fn s69_doubles_that_are_no_numbers() {
    let world = world().await;
    for id in ["0009", "0063"] {
        for double in ["7ff8000000000000", "7ff0000000000000", "fff0000000000000"] {
            refused(&echo(&world, &format!("{NAME}04{id}{double}")).await);
        }
    }
}

#[tokio::test]
async fn s70_strings_are_bytes() {
    let answer = world().await.exchange(&Request::new().call("Str", "0b000100000003fffe0000")).await;
    answer.is_result("8001000200000003537472000000000b000000000003fffe0000");
}

#[tokio::test]
async fn s71_a_required_field_is_missing() {
    refused(&echo(&world().await, "08000200000001").await);
}

#[tokio::test]
async fn s72_defaults_are_filled_in() {
    let answer = echo(&world().await, NAME).await;
    echoed(&answer, NAME);
    assert!(hex(&answer.body).ends_with("0c00000b0001000000016e0400093ff80000000000000b000a0000000464666c740000"));
}

#[tokio::test]
async fn s73_fields_in_any_order() {
    let world = world().await;
    echoed(&echo(&world, &format!("02000301 08000200000007 {NAME}")).await, &format!("{NAME}08000200000007 02000301"));
}

#[tokio::test]
async fn s74_any_byte_but_zero_is_true() {
    let world = world().await;
    for (byte, expected) in [("01", "01"), ("02", "01"), ("ff", "01"), ("00", "00")] {
        echoed(&echo(&world, &format!("{NAME}020003{byte}")).await, &format!("{NAME}020003{expected}"));
    }
}

#[tokio::test]
async fn s75_s76_lists_that_lie() {
    let world = world().await;
    // Other element types, with and without elements; sizes below zero and beyond the data.
    for list in ["08000000010000000100", "0800000000", "0000000000", "0affffffff", "0a7fffffff"] {
        refused(&echo(&world, &format!("{NAME}0f0004{list}")).await);
    }
    for container in ["0d00050b087fffffff", "0d000500000000 0000", "0e0006087fffffff"] {
        refused(&echo(&world, &format!("{NAME}{container}")).await);
    }
}

#[tokio::test]
async fn s77_the_last_of_equal_keys_wins() {
    let world = world().await;
    let map = "0d00050b08000000020000000161000000010000000161 00000002";
    echoed(&echo(&world, &format!("{NAME}{map}")).await, &format!("{NAME}0d00050b08000000010000000161 00000002"));
}

#[tokio::test]
async fn s78_a_set_has_no_order_and_no_duplicates() {
    let world = world().await;
    let set = "0e0006080000000400000005 00000001 00000005 fffffffd";
    echoed(&echo(&world, &format!("{NAME}{set}")).await, &format!("{NAME}0e00060800000003fffffffd 00000001 00000005"));
}

#[tokio::test]
async fn s79_enums_have_their_numbers_only() {
    let world = world().await;
    echoed(&echo(&world, &format!("{NAME}08000700000005")).await, &format!("{NAME}08000700000005"));
    refused(&echo(&world, &format!("{NAME}08000700000004")).await);
}

#[tokio::test]
async fn s80_a_union_holds_exactly_one() {
    let world = world().await;
    let (one, other, unknown) = ("0b00010000000161", "08000200000001", "0800090000000a");
    let union = |fields: &str| format!("{NAME}0c0008{fields}00");
    echoed(&echo(&world, &union(one)).await, &union(one));
    echoed(&echo(&world, &union(&format!("{unknown}{one}"))).await, &union(one));
    for fields in ["", &format!("{one}{other}"), &format!("{one}{one}"), unknown] {
        refused(&echo(&world, &union(fields)).await);
    }
}

#[tokio::test]
async fn s81_nesting_is_bounded() {
    let world = world().await;
    let unions = |levels: usize| {
        let open = "0f00030c00000001".repeat(levels);
        format!("{NAME}0c0008{open}0800020000000100{}", "00".repeat(levels))
    };
    echoed(&echo(&world, &unions(64)).await, &unions(64));
    let unknown = |levels: usize| format!("{NAME}{}{}", "0c0063".repeat(levels), "00".repeat(levels));
    echoed(&echo(&world, &unknown(64)).await, NAME);
    echoed(&echo(&world, &unknown(1000)).await, NAME);
    for levels in [1001, 500_000] {
        refused(&echo(&world, &unknown(levels)).await);
    }
}
