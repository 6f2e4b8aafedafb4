//! `fio` on the same file, with the same block size and depth.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{Load, MEASURED_FOR, Reached, gib};

/// The program, where it is installed.
pub(super) struct Fio;

impl Fio {
    pub(super) fn find() -> Option<Fio> {
        let version = Command::new("fio").arg("--version").output();
        version.is_ok_and(|output| output.status.success()).then_some(Fio)
    }

    pub(super) fn reached(&self, file: &Path, load: Load) -> Reached {
        let output = Command::new("fio")
            .args(["--name=read", "--rw=randread", "--direct=1", "--ioengine=io_uring"])
            .args(["--norandommap", "--randrepeat=0", "--time_based", "--thread"])
            .args(["--output-format=json", "--allow_file_create=0", "--eta=never"])
            .arg(format!("--filename={}", file.display()))
            .arg(format!("--bs={}", load.block_bytes))
            .arg(format!("--iodepth={}", load.depth))
            .arg(format!("--runtime={}", MEASURED_FOR.as_secs()))
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
}
