//! The operator's program that writes DNS records and removes them: `HOOK present NAME VALUE`, and
//! `HOOK cleanup NAME VALUE` when the authority has looked.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::process::{ChildStderr, Command};
use tokio::time::timeout;

use super::error::AcmeError;
use crate::limits::ACME_HOOK_WORDS_BYTES_MAX;

/// A TXT record that an authority looks up.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) value: String,
}

/// Has the record there. Dropping it midway ends the program.
pub(super) async fn present(hook: &Path, record: &Record) -> Result<(), AcmeError> {
    run(hook, "present", record, ENDS_WITHIN).await
}

/// Has it removed. Dropping it midway ends the program.
pub(super) async fn clean_up(hook: &Path, record: &Record) -> Result<(), AcmeError> {
    run(hook, "cleanup", record, ENDS_WITHIN).await
}

async fn run(
    hook: &Path,
    action: &'static str,
    record: &Record,
    within: Duration,
) -> Result<(), AcmeError> {
    let failed = |why| AcmeError::Hook { action, record: record.name.clone(), why };
    let mut child = Command::new(hook)
        .args([action, &record.name, &record.value])
        // What it might tell there is the service's to tell.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("{} cannot be run: {error}", hook.display())))?;
    let words = child.stderr.take().map(BufReader::new);
    let mut said = Vec::new();
    let ended = timeout(within, async {
        let mut listening = pin!(listen(words, &mut said));
        let status = tokio::select! {
            status = child.wait() => status?,
            heard = &mut listening => {
                heard?;
                return child.wait().await;
            }
        };
        // A program that it leaves behind may never close it.
        match timeout(HEARD_OUT_WITHIN, listening).await {
            Ok(Err(error)) => Err(error),
            _ => Ok(status),
        }
    });
    let how = match ended.await {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("not done within {} s", within.as_secs()),
    };
    let said = String::from_utf8_lossy(&said);
    let said: Vec<&str> = said.split_whitespace().collect();
    Err(failed(match said.is_empty() {
        true => how,
        false => format!("{how}: {}", said.join(" ")),
    }))
}

/// Until nobody can say anything any more.
async fn listen(words: Option<BufReader<ChildStderr>>, said: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut words) = words else { return Ok(()) };
    (&mut words).take(ACME_HOOK_WORDS_BYTES_MAX as u64).read_to_end(said).await?;
    // More than that is let out and not kept.
    tokio::io::copy(&mut words, &mut tokio::io::sink()).await.map(|_| ())
}

/// Of what was said before the program ended.
const HEARD_OUT_WITHIN: Duration = Duration::from_secs(1);
/// It may wait until all servers of the zone know the record.
const ENDS_WITHIN: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    async fn said(script: &str, within: Duration) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let hook = folder.path().join("hook");
        fs::write(&hook, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o700)).unwrap();
        let record = Record { name: "_acme-challenge.a.test".into(), value: "v".into() };
        run(&hook, "present", &record, within).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_hook_is_told_what_to_do_and_what_it_says_when_it_fails_is_passed_on() {
        let minute = Duration::from_secs(60);
        let asked = "[ \"$1 $2 $3\" = \"present _acme-challenge.a.test v\" ]";
        assert_eq!(said(asked, minute).await, Ok(()));
        let line = "`acme.hook` present _acme-challenge.a.test: ";
        let fails = "echo no such >&2; echo zone >&2; exit 3";
        let expected = format!("{line}exit status: 3: no such zone");
        assert_eq!(said(fails, minute).await, Err(expected));
        let many = "head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1";
        let error = said(many, minute).await.unwrap_err();
        assert_eq!(error.len(), line.len() + "exit status: 1: ".len() + ACME_HOOK_WORDS_BYTES_MAX);
        let hangs = said("exec sleep 1000", Duration::from_millis(50)).await;
        assert_eq!(hangs, Err(format!("{line}not done within 0 s")));
    }

    #[tokio::test]
    async fn a_program_that_a_hook_leaves_behind_holds_nobody_up() {
        let minute = Duration::from_secs(60);
        let leaves = "while [ -e \"$0\" ]; do sleep 1; done &";
        assert_eq!(said(leaves, minute).await, Ok(()));
        let fails = format!("echo no such zone >&2\n{leaves}\nexit 3");
        let expected =
            "`acme.hook` present _acme-challenge.a.test: exit status: 3: no such zone".to_owned();
        assert_eq!(said(&fails, minute).await, Err(expected));
    }
}
