//! What a simulated device does with its seed and its faults.

use std::future::Future;

use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::{DeviceError, Disk, Granules, Urgency};
use super::*;

const SIZE: u64 = 1 << 20;

fn simulated(faults: &str) -> Arc<Simulated> {
    let line = format!("size=1MiB,{faults}");
    Arc::new(Simulated::new(&line.parse().unwrap()))
}

fn disk(device: &Arc<Simulated>) -> Disk {
    let device: Arc<dyn Device> = Arc::<Simulated>::clone(device);
    Disk::new(device)
}

fn filled(byte: u8) -> Vec<Buffer> {
    let mut memory = Granules::zeroed(1);
    memory.bytes_mut().fill(byte);
    vec![Buffer::Own(memory)]
}

async fn read(disk: &Disk, at: u64) -> Result<u8, DeviceError> {
    let deadline = Instant::now() + Duration::from_secs(1);
    let into = vec![Buffer::Own(Granules::zeroed(1))];
    let back = disk.read(at, into, Urgency::Viewer, deadline).await?;
    Ok(back[0].bytes()[0])
}

/// Runs `work` where every run is the same.
fn on_paused_clock<T>(work: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

fn bytes(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; SIZE as usize];
    image.read(0, &mut bytes);
    bytes
}

/// Which of sixty writes ended when and how, and what a crash left of them.
fn history(seed: u64) -> (Vec<(u64, bool, Duration)>, Vec<u8>) {
    on_paused_clock(async move {
        let device = simulated(&format!("seed={seed},latency=20ms,fail-writes=10%"));
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for index in 0..60 {
            let disk = disk(&device);
            tasks.spawn(async move {
                let written = disk.write(index * 4096, filled(1), Urgency::Write).await;
                (index, written.is_ok(), began.elapsed())
            });
        }
        let mut ended = Vec::new();
        while let Some(task) = tasks.join_next().await {
            ended.push(task.unwrap());
        }
        (ended, bytes(&device.crash()))
    })
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..10 {
        let (ended, left) = history(seed);
        assert_eq!((&ended, &left), (&history(seed).0, &history(seed).1), "seed {seed}");
        assert!(!ended.is_sorted_by_key(|(index, ..)| *index), "seed {seed}: in another order");
        assert!(ended.iter().any(|(_, ok, _)| !ok) && ended.iter().any(|(_, ok, _)| *ok));
    }
    assert_ne!(history(1), history(2));
}

#[test]
fn what_was_flushed_is_there_after_a_crash_and_a_start() {
    for seed in 0..20 {
        let image = on_paused_clock(async move {
            let device = simulated(&format!("seed={seed},latency=5ms"));
            let disk = disk(&device);
            disk.write(4096, filled(1), Urgency::Write).await.unwrap();
            disk.flush(Urgency::Write).await.unwrap();
            disk.write(8192, filled(2), Urgency::Write).await.unwrap();
            assert_eq!(read(&disk, 8192).await.unwrap(), 2);
            device.crash()
        });
        on_paused_clock(async move {
            let device = Arc::new(Simulated::from_image(image, seed, Faults::default()));
            assert_eq!(read(&disk(&device), 4096).await.unwrap(), 1, "seed {seed}");
        });
    }
}

#[test]
fn a_stall_lets_the_deadline_pass_and_ends_later() {
    on_paused_clock(async {
        let device = simulated("stall-reads=2s");
        let disk = disk(&device);
        assert!(matches!(read(&disk, 0).await, Err(DeviceError::Late)));
        assert_eq!(device.figures().depth, 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let figures = device.figures();
        assert_eq!((figures.depth, figures.read_latency[9]), (0, 1));
    });
}

#[test]
fn an_operation_after_the_last_never_ends() {
    on_paused_clock(async {
        let device = simulated("stop-after=2");
        let disk = disk(&device);
        assert_eq!(read(&disk, 0).await.unwrap(), 0);
        disk.write(0, filled(1), Urgency::Write).await.unwrap();
        assert!(timeout(Duration::from_secs(1), device.stopped()).await.is_err());
        let never = disk.write(4096, filled(2), Urgency::Write);
        assert!(timeout(Duration::from_secs(3_600), never).await.is_err());
        device.stopped().await;
        assert_eq!(device.operations(), 3);
        let seen = bytes(&device.image());
        assert_eq!((seen[0], seen[4096]), (1, 0));
        // It may have reached the media all the same.
        assert!((0..100).any(|_| bytes(&device.crash())[4096] == 2));
    });
}

#[test]
fn a_device_that_vanished_fails_everything() {
    on_paused_clock(async {
        let device = simulated("vanish-after=1");
        let disk = disk(&device);
        read(&disk, 0).await.unwrap();
        let Err(DeviceError::Failed(error)) = read(&disk, 0).await else { panic!("it is gone") };
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(disk.write(0, filled(1), Urgency::Write).await.is_err());
        assert!(disk.flush(Urgency::Write).await.is_err());
    });
}

#[test]
fn a_device_is_healthy_for_as_long_as_it_says() {
    on_paused_clock(async {
        let device = simulated("fail-reads=100%,healthy-for=10s");
        let disk = disk(&device);
        read(&disk, 0).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(read(&disk, 0).await.is_err());
        device.set_faults(Faults::default());
        read(&disk, 0).await.unwrap();
    });
}

#[test]
fn a_flipped_write_is_one_bit_wrong_and_a_misdirected_one_is_elsewhere() {
    on_paused_clock(async {
        let device = simulated("flip-writes=100%");
        disk(&device).write(4096, filled(0), Urgency::Write).await.unwrap();
        let ones: u32 = bytes(&device.image()).iter().map(|byte| byte.count_ones()).sum();
        assert_eq!(ones, 1);

        let device = simulated("misdirect-writes=100%,seed=3");
        disk(&device).write(4096, filled(9), Urgency::Write).await.unwrap();
        let image = bytes(&device.image());
        let granules: Vec<usize> = (0..256).filter(|g| image[g * 4096] == 9).collect();
        assert!(granules.len() == 1 && granules != [1], "{granules:?}");
    });
}

#[test]
fn a_share_of_reads_fails_on_many_threads_without_a_paused_clock_too() {
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    runtime.block_on(async {
        let device = simulated("fail-reads=50%,latency=1ms");
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let disk = disk(&device);
            tasks.spawn(async move {
                let mut failed = 0;
                for _ in 0..50 {
                    failed += usize::from(read(&disk, 0).await.is_err());
                }
                failed
            });
        }
        let failed: usize = tasks.join_all().await.into_iter().sum();
        assert!((100..300).contains(&failed), "{failed} of 400");
        assert_eq!((device.figures().errors, device.figures().depth), (failed as u64, 0));
        assert_eq!(device.figures().flush_errors, 0);
        device.set_faults(Faults { fail_flushes: Share::ALL, ..Faults::default() });
        assert!(disk(&device).flush(Urgency::Write).await.is_err());
        assert_eq!(device.figures().flush_errors, 1);
        assert_eq!(device.figures().errors, failed as u64 + 1);
    });
}
