/**
 * What stands in the event topics: the value of each message is one SinkEvent, strict binary, without an envelope.
 */
include "base.thrift"
include "msgpack.thrift"

namespace java dev.vality.machinegun.event_sink
namespace erlang mg.event_sink

union SinkEvent {
    1: MachineEvent event
}

struct MachineEvent {
    1: required base.Namespace source_ns
    2: required base.ID source_id
    3: required base.EventID event_id
    4: required base.Timestamp created_at
    5: optional i32 format_version
    6: required msgpack.Value data
}
