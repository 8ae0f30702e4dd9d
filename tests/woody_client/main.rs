//! The client against a peer that follows a script: the rows of the protocol's conformance table, by their numbers.
//!
//! | rows | test |
//! |---|---|
//! | C1 | `c01_the_request_to_the_letter` |
//! | C2, C3 | `c02_c03_results` |
//! | C4, C5, C7, C12, C13 | `c04_to_c13_replies_that_are_none` |
//! | C6, C8 to C11 | `c06_to_c11_results_that_the_caller_refuses` |
//! | C14, C15 | `c14_c15_the_body_alone_decides` |
//! | C16, C17 | `c16_c17_every_other_status_is_unexpected` |
//! | C18 to C22 | `c18_to_c22_a_502_says_its_class` |
//! | C23 to C25 | `c23_to_c25_a_503_and_a_504_need_no_class` |
//! | C26 to C28 | `c26_to_c28_no_head_of_a_reply` |
//! | C29, C30 | `c29_c30_a_reply_that_breaks_off` |
//! | C31 | `c31_other_framings` |
//! | C32 | `c32_no_http` |
//! | C33 | `c33_nobody_to_call` |
//! | C34 | `c34_a_syn_that_nobody_answers` |
//! | C35 | `c35_the_pool_is_exhausted` |
//! | C36 | `c36_a_deadline_that_passed` |
//! | C37 | `c37_without_a_deadline_a_reply_has_five_seconds` |
//! | C38 | none: the client sends no oneway, for no interface here has one |
//! | C39 | `c39_a_connection_that_the_peer_closed_meanwhile`, `c39_a_request_that_was_received_is_never_sent_again` |
//! | C40 | `c40_extra_headers_mean_nothing` |

#[path = "../certificates/mod.rs"]
mod certificates;
mod outcomes;
mod pool;
mod script;
mod secure;
