/**
 * Machines, what is asked of them, and what their processors answer.
 *
 * Fields stand in the order in which they are written, which is not always that of their numbers. `_legacy` marks what
 * only the first generation writes and reads under the bare name; names do not travel.
 */
include "base.thrift"
include "msgpack.thrift"

namespace java dev.vality.machinegun.stateproc
namespace erlang mg.stateproc

typedef msgpack.Value Args
typedef msgpack.Value CallResponse
typedef msgpack.Value RepairResponse

/** An opaque text of at most 11 characters. */
typedef string NotificationID

exception EventNotFound {}
exception MachineNotFound {}
exception NamespaceNotFound {}
exception MachineAlreadyExists {}
exception MachineFailed {}
exception MachineAlreadyWorking {}
exception EventSinkNotFound {}

/** The processor refused to repair. */
exception RepairFailed {
    1: required msgpack.Value reason
}

/** A processor's data with the version of its format. */
struct Content {
    1: optional i32 format_version
    2: required msgpack.Value data
}

typedef Content EventBody
typedef Content AuxState

/** A fact of a machine's past. */
struct Event {
    1: required base.EventID id
    2: required base.Timestamp created_at
    5: optional i32 format_version
    4: required msgpack.Value data
}

typedef list<Event> History

struct MachineStatusWorking {}

struct MachineStatusFailed {
    1: optional string reason
}

union MachineStatus {
    1: MachineStatusWorking working
    2: MachineStatusFailed failed
}

/** A machine with the part of its history that was asked for. */
struct Machine {
    1: required base.Namespace ns
    2: required base.ID id
    3: required History history
    /** The part that was asked for, as it was asked for. */
    4: required HistoryRange history_range
    8: optional MachineStatus status
    7: optional AuxState aux_state
    6: optional base.Timestamp timer
    5: optional msgpack.Value aux_state_legacy
}

enum Direction {
    forward = 1
    backward = 2
}

/** At most `limit` events, in the given direction, of those that follow `after` in that direction. */
struct HistoryRange {
    1: optional base.EventID after
    2: optional i32 limit
    3: optional Direction direction = Direction.forward
}

union Reference {
    1: base.ID id
    /** The first two generations only. */
    2: base.Tag tag
}

struct MachineDescriptor {
    1: required base.Namespace ns
    2: required Reference ref
    3: required HistoryRange range
}

/** Sets the timer in place of an earlier one. */
struct SetTimerAction {
    1: required base.Timer timer
    /** The history that the signal is to bring; all of it if absent. */
    2: optional HistoryRange range
    /** How long the signal may be worked on; 30 if absent. */
    3: optional base.Timeout timeout
}

struct UnsetTimerAction {}

union TimerAction {
    1: SetTimerAction set_timer
    2: UnsetTimerAction unset_timer
}

/** Gives the machine a tag. The first two generations only. */
struct TagAction {
    1: required base.Tag tag
}

/** Removes the machine with all its history, after all else in the same answer. */
struct RemoveAction {}

struct ComplexAction {
    /** Deprecated by `timer` in all generations. */
    1: optional SetTimerAction set_timer
    3: optional TimerAction timer
    2: optional TagAction tag
    4: optional RemoveAction remove
}

struct MachineStateChange {
    1: optional msgpack.Value aux_state_legacy
    2: optional list<msgpack.Value> events_legacy
    3: optional AuxState aux_state
    4: optional list<EventBody> events
}

struct CallArgs {
    1: required Args arg
    2: required Machine machine
}

struct CallResult {
    1: required CallResponse response
    2: required MachineStateChange change
    3: required ComplexAction action
}

struct InitSignal {
    1: required Args arg
}

struct TimeoutSignal {}

/**
 * To a processor of the first generation the same number and shape mean its RepairSignal, whose `arg` is optional
 * there. The second generation has neither.
 */
struct NotificationSignal {
    1: required Args arg
}

union Signal {
    1: InitSignal init
    2: TimeoutSignal timeout
    3: NotificationSignal notification
}

struct SignalArgs {
    1: required Signal signal
    2: required Machine machine
}

struct SignalResult {
    1: required MachineStateChange change
    2: required ComplexAction action
}

struct RepairArgs {
    1: required Args arg
    2: required Machine machine
}

struct RepairResult {
    1: required RepairResponse response
    2: required MachineStateChange change
    3: required ComplexAction action
}

struct MachineEvent {
    1: required base.Namespace ns
    2: required base.ID id
    3: required Event event
}

struct ModernizeEventResult {
    1: required EventBody event_payload
}

struct NotifyResponse {
    1: required NotificationID id
}

/** An event in a sink of the first two generations, numbered by the sink. */
struct SinkEvent {
    1: required base.EventID id
    2: required base.ID source_id
    3: required base.Namespace source_ns
    4: required Event event
}

typedef list<SinkEvent> SinkHistory

/** What a client implements: decides what its machines do next. */
service Processor {
    SignalResult ProcessSignal (1: SignalArgs a)

    CallResult ProcessCall (1: CallArgs a)

    RepairResult ProcessRepair (1: RepairArgs a) throws (1: RepairFailed ex1)
}

/** What a client implements: brings events to the newest format. */
service Modernizer {
    ModernizeEventResult ModernizeEvent (1: MachineEvent ev)
}

/** Machines, at `/v1/automaton`. */
service Automaton {
    void Start (1: base.Namespace ns, 2: base.ID id, 3: Args a) throws (
        1: NamespaceNotFound ex1
        2: MachineAlreadyExists ex2
        3: MachineFailed ex3
    )

    RepairResponse Repair (1: MachineDescriptor desc, 2: Args a) throws (
        1: NamespaceNotFound ex1
        2: MachineNotFound ex2
        3: MachineFailed ex3
        4: MachineAlreadyWorking ex4
        5: RepairFailed ex5
    )

    void SimpleRepair (1: base.Namespace ns, 2: Reference ref) throws (
        1: NamespaceNotFound ex1
        2: MachineNotFound ex2
        3: MachineFailed ex3
        4: MachineAlreadyWorking ex4
    )

    CallResponse Call (1: MachineDescriptor desc, 2: Args a) throws (
        1: NamespaceNotFound ex1
        2: MachineNotFound ex2
        3: MachineFailed ex3
    )

    Machine GetMachine (1: MachineDescriptor desc) throws (
        1: NamespaceNotFound ex1
        2: MachineNotFound ex2
        3: EventNotFound ex3
    )

    void Remove (1: base.Namespace ns, 2: base.ID id) throws (
        1: NamespaceNotFound ex1
        2: MachineNotFound ex2
    )

    void Modernize (1: MachineDescriptor desc) throws (
        1: NamespaceNotFound ex1
        2: MachineNotFound ex2
    )

    NotifyResponse Notify (1: MachineDescriptor desc, 2: Args a) throws (
        1: NamespaceNotFound ex1
        2: MachineNotFound ex2
    )
}

/** The one method of Automaton that meant something else in the first generation. Served at the same path. */
service LegacyAutomaton {
    void Repair (1: MachineDescriptor desc, 2: Args a) throws (
        1: NamespaceNotFound ex1
        2: MachineNotFound ex2
        3: MachineFailed ex3
    )
}

/** Events of many machines in one order, at `/v1/event_sink`. The first two generations only. */
service EventSink {
    SinkHistory GetHistory (1: base.ID event_sink_id, 2: HistoryRange range) throws (
        1: EventSinkNotFound ex1
        2: EventNotFound ex2
        3: base.InvalidRequest ex3
    )
}
