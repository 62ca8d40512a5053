#ifdef FLOAT_ATOMICS
alias FloatWord = atomic<f32>;
#else
alias FloatWord = atomic<u32>;
#endif
