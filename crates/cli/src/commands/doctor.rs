//! `vqdna doctor`: what this machine has and what will be used.

mod gpu;

use anyhow::Result;
use clap::Args as ClapArgs;
use vqdna::device;

use super::Verdict;
use crate::arguments::Compute;
use crate::words::counted;

/// Show devices, graphics processors, threads, SIMD level and memory, and what will be used.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna doctor\n\
    \x20 vqdna doctor --device cpu -@ 8")]
pub struct Args {
    #[command(flatten)]
    pub compute: Compute,
}

/// Prints one line a finding, tab-separated.
pub fn run(args: &Args) -> Result<Verdict> {
    data!("program\tvqdna {}", env!("CARGO_PKG_VERSION"));
    data!("system\t{} {}", std::env::consts::OS, std::env::consts::ARCH);
    let devices = device::available();
    data!("devices_in_this_build\t{}", devices.join(", "));
    let gpus = gpu::find();
    for gpu in &gpus {
        data!("gpu\t{}\t{}", gpu.name, gpu::advice(gpu.maker, &devices));
    }
    if gpus.is_empty() {
        data!("gpu\tnone found");
    }
    data!("cores\t{}", std::thread::available_parallelism().map_or(0, usize::from));
    data!("simd\t{}", vqdna::ops::simd_level()?);
    data!("memory_total\t{}", memory("MemTotal:"));
    data!("memory_available\t{}", memory("MemAvailable:"));
    let opened = args.compute.open()?;
    let kernels = if vqdna::ops::is_fused(&opened) { "fused CPU kernels" } else { "Burn's operations" };
    let threads = counted(args.compute.threads()? as u64, "thread");
    data!("will_use\tdevice {} with {kernels}, {threads}, f32", args.compute.device);
    Ok(Verdict::Passed)
}

const KIB_PER_GIB: f64 = 1_048_576.0;

fn memory(field: &str) -> String {
    meminfo(field).map_or_else(|| "unknown".to_owned(), |kib| format!("{:.1} GiB", kib as f64 / KIB_PER_GIB))
}

/// A field of `/proc/meminfo` in KiB, where there is one.
fn meminfo(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}
