// One workgroup in all: exclusive prefix sum. Each thread sums a run of counts, the workgroup scans
// the sums, and each thread writes the offsets of its run.

const THREADS = 256u;

struct ScanParams {
    n: u32,
    pad0: u32,
    pad1: u32,
    pad2: u32,
}

@group(0) @binding(0) var<uniform> p: ScanParams;
@group(0) @binding(1) var<storage, read> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> offsets: array<u32>;

var<workgroup> sums: array<u32, THREADS>;

@compute @workgroup_size(THREADS)
fn scan(@builtin(local_invocation_index) thread: u32) {
    let run = (p.n + THREADS - 1u) / THREADS;
    let start = min(thread * run, p.n);
    let end = min(start + run, p.n);
    var own = 0u;
    for (var i = start; i < end; i++) {
        own += counts[i];
    }
    sums[thread] = own;
    workgroupBarrier();
    // Hillis and Steele: after the round with distance d, a sum covers 2d runs.
    for (var distance = 1u; distance < THREADS; distance *= 2u) {
        var before = 0u;
        if thread >= distance {
            before = sums[thread - distance];
        }
        workgroupBarrier();
        sums[thread] += before;
        workgroupBarrier();
    }
    var offset = sums[thread] - own;
    for (var i = start; i < end; i++) {
        offsets[i] = offset;
        offset += counts[i];
    }
    if thread == THREADS - 1u {
        offsets[p.n] = offset;
    }
}
