/**
 * Words that the other files share.
 *
 * These files are the union of the three generations of the interface that are in use: what a peer of any of them can
 * put on the wire. Each generation knows a part of it; readers skip the fields that they do not know.
 */
namespace java dev.vality.machinegun.base
namespace erlang mg.base

/** Names a thing within its namespace. Any bytes. */
typedef string ID

/** A kind of machines, all of which one processor decides about. */
typedef string Namespace

/** A second name of a machine, from the first two generations. */
typedef string Tag

/** RFC 3339 in UTC: `2016-03-22T06:12:27Z`, with or without a fraction. */
typedef string Timestamp

/** The number of an event: the first one of a history is 1. */
typedef i64 EventID

/** Seconds. */
typedef i32 Timeout

/** Bytes without a meaning to those who pass them on. */
typedef binary Opaque

/** When a timer goes off. */
union Timer {
    /** So many seconds from now. */
    1: Timeout timeout
    /** At this time. */
    2: Timestamp deadline
}

/** The request makes no sense; says why, in words. */
exception InvalidRequest {
    1: required list<string> errors
}
