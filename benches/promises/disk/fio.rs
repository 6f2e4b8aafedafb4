//! `fio` on the same file, with the same block size and depth.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Load, MEASURED_FOR, Reached, gib};

/// The program, where it is installed.
pub(crate) struct Fio;

/// A part of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

impl Fio {
    pub(crate) fn find() -> Option<Fio> {
        let version = Command::new("fio").arg("--version").output();
        version.is_ok_and(|output| output.status.success()).then_some(Fio)
    }

    /// For a while, at places that may come again.
    pub(super) fn reached(&self, file: &Path, load: Load) -> Reached {
        let seconds = MEASURED_FOR.as_secs();
        let more = ["--norandommap", "--time_based", &format!("--runtime={seconds}")];
        run(file, (load.block_bytes, load.depth), &more)
    }

    /// Every block of `span` once.
    pub(crate) fn reached_once(
        &self,
        file: &Path,
        span: Span,
        block_bytes: u64,
        depth: u64,
    ) -> Reached {
        let Span { start, bytes } = span;
        let more = [format!("--offset={start}"), format!("--size={bytes}")];
        run(file, (block_bytes, depth), &more.each_ref().map(String::as_str))
    }
}

fn run(file: &Path, (block_bytes, depth): (u64, u64), more: &[&str]) -> Reached {
    let output = Command::new("fio")
        .args(["--name=read", "--rw=randread", "--direct=1", "--ioengine=io_uring"])
        .args(["--randrepeat=0", "--thread", "--readonly"])
        .args(["--output-format=json", "--allow_file_create=0", "--eta=never"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--bs={block_bytes}"))
        .arg(format!("--iodepth={depth}"))
        .args(more)
        .output()
        .expect("fio was there before");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("fio writes JSON");
    let job = &said["jobs"][0];
    let number = |value: &Value| value.as_f64().expect("fio says a number");
    let read = &job["read"];
    let seconds = number(&read["runtime"]) / 1e3;
    let cpu = (number(&job["usr_cpu"]) + number(&job["sys_cpu"])) / 100.0 * seconds;
    let bytes = number(&read["io_bytes"]);
    Reached { bytes_per_second: bytes / seconds, cpu_seconds_per_gib: cpu / gib(bytes as u64) }
}
