// A template: `$` is an `array<FloatWord>` in storage that many invocations add to.
// Where the device has no f32 atomics, the words are u32 and a compare-exchange loop does the sum.

#import float_word

#ifdef FLOAT_ATOMICS
fn add_to_$(i: u32, value: f32) {
    atomicAdd(&$[i], value);
}
#else
fn add_to_$(i: u32, value: f32) {
    var old = atomicLoad(&$[i]);
    loop {
        let result = atomicCompareExchangeWeak(&$[i], old, bitcast<u32>(bitcast<f32>(old) + value));
        if result.exchanged {
            break;
        }
        old = result.old_value;
    }
}
#endif
