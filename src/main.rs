//! The `gen3d` command: 0 done, 1 failed, 2 usage, 130 interrupted after saving a checkpoint.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: gen3d::alloc::HugePages = gen3d::alloc::HugePages;

fn main() -> ExitCode {
    // Mesa's device-select layer prints an error where there is no desktop session. It only reorders
    // adapters, which gen3d does by itself.
    // candle's own pool waits for its workers in a spin loop. The layers here are parallel by rayon, and
    // where another program shares the cores the spinning took a third of a training step.
    // SAFETY: no other thread has been started yet.
    unsafe {
        std::env::set_var("NODEVICE_SELECT", "1");
        std::env::set_var("CANDLE_NUM_THREADS", "1");
    }
    gen3d::cli::main()
}
