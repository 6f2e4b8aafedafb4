//! What only one of two processes can have: volumes, and the journal of purges. Handed over, and
//! taken back from one that had them and follows no more.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::super::{LOG_ENDS_WITHIN, ssd};
use super::HandOver;
use crate::config::Config;
use crate::purge::Keeper;

impl HandOver {
    /// Volumes and journal are as this process would leave them at its end.
    pub(super) fn give_volumes(&self) -> Result<(), String> {
        let parts = &self.parts;
        self.are_given.store(true, Ordering::Release);
        parts.filler.runtime.block_on(ssd::hand_over(&parts.ssd, &parts.ssd_watch));
        let keeper = parts.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Err(keeper)) = keeper.map(|keeper| keeper.finish(LOG_ENDS_WITHIN)) else {
            return Ok(());
        };
        // It may write what the other one would not read.
        *parts.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        Err("the journal of purges does not end".to_owned())
    }

    /// Writes to the volumes and purges again, when who had them has ended. Blocks.
    ///
    /// # Errors
    /// What is not written any more, and what to do.
    pub(super) fn take_back(&self) -> Result<(), String> {
        let parts = &self.parts;
        let current = parts.live.current.lock().unwrap_or_else(PoisonError::into_inner);
        let config = current.started.clone();
        drop(current);
        let (runtime, watch) = (&parts.filler.runtime, &parts.ssd_watch);
        let volumes = ssd::take_back(&config, &parts.ssd, watch, runtime);
        self.are_given.store(false, Ordering::Release);
        // Last: its disk may hang.
        let journal = self.take_journal_back(&config);
        let mut lost = Vec::new();
        if let Err(names) = volumes {
            lost.push(format!("nothing is written to volume {}", names.join(", ")));
        }
        if let Err(why) = journal {
            lost.push(format!("nothing can be purged: {why}"));
        }
        match lost.is_empty() {
            true => Ok(()),
            false => {
                Err(format!("; and {}: restart the service if it stays so", lost.join(", and ")))
            }
        }
    }

    /// Unless the thread that wrote it before may write to it yet.
    fn take_journal_back(&self, config: &Config) -> Result<(), String> {
        let purges = &self.parts.purges;
        let keeper = || self.parts.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let is_at_work = keeper().as_ref().map(Keeper::is_at_work);
        if let Some(is_at_work) = is_at_work {
            purges.tell_nobody();
            let silent = || "the disk of `ssd.state` does not answer".to_owned();
            return if is_at_work { Ok(()) } else { Err(silent()) };
        }
        let journal = (!config.ssd.volumes.is_empty()).then(|| config.ssd.purges());
        // Whoever ends this process asks for the keeper, and is not to wait for this disk.
        let started = purges.go_on(journal.as_deref()).map_err(|error| error.to_string())?;
        *keeper() = Some(started);
        Ok(())
    }

    /// This process ends before anybody follows: what ended since the volumes were handed over must
    /// not come back with them. Blocks.
    pub fn give_up(&self) {
        if self.are_given.load(Ordering::Acquire) {
            ssd::leave_untold(&self.parts.config);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use tokio::task::spawn_blocking;

    use super::super::super::Appliance;
    use super::*;

    #[tokio::test]
    async fn a_journal_whose_disk_hangs_keeps_no_process_from_ending() {
        let folder = tempfile::tempdir().unwrap();
        let [state, volume] = ["state", "volume"].map(|name| folder.path().join(name));
        let config = |ssd: &str| {
            let text = format!(
                "listeners.http = '127.0.0.1:0'\nlog.access = 'off'\nmemory.ram = '64 MiB'\n\
                 ssd.state = {state:?}\n{ssd}[[sites]]\nname = 'a'\nhosts = 'a'\n\
                 origins = 'http://o'\n"
            );
            Config::from_toml(&text, "t.toml").unwrap()
        };
        let volumes = format!("ssd.volumes = [{{ path = {volume:?}, size = '256 MiB' }}]\n");
        let (alone, taken_back) = (config(""), config(&volumes));
        let journal = taken_back.ssd.purges();
        assert!(Command::new("mkfifo").arg(&journal).status().unwrap().success());
        // Whoever reads waits for what is written.
        let disk = fs::File::options().read(true).write(true).open(&journal).unwrap();
        let opened = || {
            let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
            open.filter(|one| fs::read_link(one.path()).is_ok_and(|it| it == journal)).count()
        };
        let running = spawn_blocking(|| Appliance::start(alone)).await.unwrap().unwrap();
        let parts = running.parts.clone();
        let keeper = parts.keeper.lock().unwrap().take().unwrap();
        assert!(keeper.finish(LOG_ENDS_WITHIN).is_ok());
        let hand_over = running.hand_over();
        let taking = spawn_blocking(move || hand_over.take_journal_back(&taken_back));
        let asked = Instant::now();
        while opened() < 2 {
            assert!(asked.elapsed() < Duration::from_secs(60), "it is not opened");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(parts.keeper.try_lock().is_ok(), "who ends the process waits for it");
        spawn_blocking(|| running.drain()).await.unwrap();
        drop(disk);
        assert_eq!(taking.await.unwrap(), Ok(()));
    }
}
