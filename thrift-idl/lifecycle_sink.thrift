/**
 * What stands in the lifecycle topics: the value of each message is one LifecycleEvent, strict binary, without an
 * envelope.
 */
include "base.thrift"
include "state_processing.thrift"

namespace java dev.vality.machinegun.lifecycle_sink
namespace erlang mg.lifecycle_sink

struct LifecycleEvent {
    1: required base.Namespace machine_ns
    2: required base.ID machine_id
    3: required base.Timestamp created_at
    4: required LifecycleEventData data
}

union LifecycleEventData {
    1: MachineLifecycleEvent machine
}

union MachineLifecycleEvent {
    1: MachineLifecycleCreatedEvent created
    2: MachineLifecycleStatusChangedEvent status_changed
    3: MachineLifecycleRemovedEvent removed
}

struct MachineLifecycleCreatedEvent {}

struct MachineLifecycleStatusChangedEvent {
    1: required state_processing.MachineStatus new_status
}

struct MachineLifecycleRemovedEvent {}
