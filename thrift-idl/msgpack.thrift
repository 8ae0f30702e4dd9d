/**
 * Data of clients, with the shapes of MessagePack. It is stored and handed on as it came, entry order included.
 */
namespace java dev.vality.machinegun.msgpack
namespace erlang mg.msgpack

typedef map<Value, Value> Object

typedef list<Value> Array

union Value {
    1: Nil nl
    2: bool b
    3: i64 i
    /** Neither NaN nor an infinity. */
    4: double flt
    /** UTF-8. */
    5: string str
    6: binary bin
    7: Object obj
    8: Array arr
}

struct Nil {}
