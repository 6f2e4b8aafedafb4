//! `tidegate control`: a control plane alone, and what its operator asks of it on its machine.
//!
//! Where one runs it is asked over HTTPS, by the token of its file, and by no other certificate
//! than it has; where none does, its state is opened. Both by the section `control` of the
//! configuration.

mod asked;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Subcommand;
use sd_notify::NotifyState;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use self::asked::ask;
use super::serve::{log_to_stderr, notify, raise_descriptor_limit};
use super::{Failure, USUAL_CONFIG, duration, print};
use crate::appliance::{ApplianceError, ControlPlane};
use crate::config::units::duration_text;
use crate::config::{Control, ControlFile, cause, load_control};
use crate::control::issuer::{Issuer, IssuerError, look_at_clock, signing_key_of_before};
use crate::control::plane::PlaneError;
use crate::control::plane::wire::{CODES_PATH, Code, EPOCH_PATH, EXPORT_PATH, NewCode};
use crate::control::snapshot::{EpochOrder, Number};
use crate::control::state::{AuditRecord, By, Exported, Purpose, State, StateError};
use crate::moment::unix_seconds;

const EXAMPLES: &str = "\
Examples:
  tidegate control --config /etc/tidegate/tidegate.toml
  tidegate control code edge-7 --config /etc/tidegate/tidegate.toml
  tidegate control export > fleet.json

Without a command it runs the control plane of the section `control`, and nothing else: where
`tidegate serve` runs with that section, it is there already. SIGTERM and SIGINT end it with exit
code 0; SIGHUP reads the tokens and the certificate again. One that breaks off ends with 1.

Exit codes: 0 told to stop, or done, 1 failed, 64 misused, or a fault in the configuration";

/// Run the control plane of a fleet, or ask it something
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration, with a section `control`
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG, global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Code(CodeArgs),
    Export(ExportArgs),
    Import(ImportArgs),
    RaiseEpoch(EpochArgs),
}

const CODE_EXAMPLES: &str = "\
Examples:
  tidegate control code edge-7
  tidegate control code edge-7 --valid 1h --json

The box of that name shows the code once and is given a certificate for it; then the code is used
up. It is shown now and never again. The control plane has to run.

Exit codes: 0 made, 1 not made, 64 misused, or a fault in the configuration";

/// Make a code by which a box is enrolled
#[derive(Debug, clap::Args)]
#[command(after_help = CODE_EXAMPLES)]
struct CodeArgs {
    /// What the box will be called
    name: String,
    /// How long the code counts
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1d")]
    valid: std::time::Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

const EXPORT_EXAMPLES: &str = "\
Examples:
  tidegate control export > fleet.json
  tidegate control export --config /etc/tidegate/tidegate.toml > fleet.json

Appliances, certificates, keys of tokens and the number of the snapshot, as JSON: a backup, together
with `ca.pem`, `ca.key` and `snapshot.key` of the state folder, which are not in it. It is as secret
as the keys are.

Exit codes: 0 done, 1 failed, 64 misused, or a fault in the configuration";

/// Write the state of the control plane as JSON
#[derive(Debug, clap::Args)]
#[command(after_help = EXPORT_EXAMPLES)]
struct ExportArgs {
    /// As JSON, which it always is
    #[arg(long)]
    json: bool,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  tidegate control import fleet.json
  tidegate control import fleet.json --config /etc/tidegate/tidegate.toml

Takes over what `tidegate control export` wrote, into a state that has nothing yet; the control
plane must not run. Boxes may hold a later snapshot than the one it was exported with: raise the
epoch then.

Exit codes: 0 done, 1 failed, 64 misused, or a fault in the configuration";

/// Take over a state that was exported
#[derive(Debug, clap::Args)]
#[command(after_help = IMPORT_EXAMPLES)]
struct ImportArgs {
    /// What was exported
    file: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

const EPOCH_EXAMPLES: &str = "\
Examples:
  tidegate control raise-epoch
  tidegate control raise-epoch --to 5

After a backup was restored: boxes refuse snapshots that are older than the one they hold, and the
control plane begins to count where the backup was made. In a later epoch whatever it publishes is
later. The order is signed by the key of snapshots, which lies in the state folder.

Exit codes: 0 done, 1 failed, 64 misused, or a fault in the configuration";

/// Have boxes take snapshots again after a backup was restored
#[derive(Debug, clap::Args)]
#[command(after_help = EPOCH_EXAMPLES)]
struct EpochArgs {
    /// Raise it to this one, later than all that boxes may have seen; the next where it is left out
    #[arg(long, value_name = "EPOCH")]
    to: Option<u64>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs it, or asks it.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let file = load_control(&args.config).map_err(|e| Failure::Misused(e.to_string()))?;
    match &args.command {
        None => serve(&args.config, file),
        Some(Command::Code(code)) => print(&new_code(&file.control, code)?),
        Some(Command::Export(_)) => print(&export(&file.control)?),
        Some(Command::Import(import)) => print(&take_over(&file.control, import)?),
        Some(Command::RaiseEpoch(raise)) => print(&raise_epoch(&file.control, raise)?),
    }
}

/// Runs until a signal says stop.
fn serve(path: &Path, file: ControlFile) -> Result<(), Failure> {
    let ControlFile { control, level, warnings } = file;
    let _told = log_to_stderr(level);
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    raise_descriptor_limit();
    let plane = ControlPlane::start(&control).map_err(|error| match error {
        ApplianceError::Control(PlaneError::State(StateError::InUse { path })) => {
            let path = path.display();
            Failure::Failed(format!("{path} is in use: is the control plane running already?"))
        }
        error => Failure::Failed(error.to_string()),
    })?;
    let no_signals = |error| Failure::Failed(format!("signals cannot be waited for: {error}"));
    let runtime = super::admin::runtime()?;
    let waited: std::io::Result<Ended> = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        plane.addresses().iter().for_each(|address| tracing::info!("control at {address}"));
        notify(&[NotifyState::Ready]);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(Ended::AsTold),
                _ = interrupt.recv() => return Ok(Ended::AsTold),
                () = plane.ended() => return Ok(Ended::ByItself),
                _ = hangup.recv() => match load_control(path) {
                    Ok(file) => {
                        plane.adopt(&file.control);
                        tracing::info!("read the tokens and the certificate again");
                    }
                    Err(faults) => tracing::error!("all stays as it was: {faults}"),
                },
            }
        }
    });
    notify(&[NotifyState::Stopping]);
    plane.end();
    match waited.map_err(no_signals)? {
        Ended::AsTold => Ok(()),
        Ended::ByItself => {
            let text = "the control plane has ended by itself, which is a mistake in Tidegate; \
                        its log says why";
            Err(Failure::Failed(text.to_owned()))
        }
    }
}

/// How it ended.
#[derive(Clone, Copy)]
enum Ended {
    AsTold,
    ByItself,
}

fn new_code(control: &Control, args: &CodeArgs) -> Result<String, Failure> {
    let asked = NewCode { name: args.name.clone(), valid_seconds: Some(args.valid.as_secs()) };
    let body = serde_json::to_vec(&asked).expect("text can be written as JSON");
    let told = ask(control, http::Method::POST, CODES_PATH, body)?;
    let Code { code, name, .. } = understood(&told)?;
    Ok(match args.json {
        true => line(&told),
        false => format!(
            "{code}\n\nThe box {name} shows it once, within {}; it is not shown again.\n",
            duration_text(args.valid)
        ),
    })
}

fn export(control: &Control) -> Result<String, Failure> {
    Ok(line(&match opened(control)? {
        Some(state) => {
            let exported = state.export().map_err(failed)?;
            let noted = state.note(by_hand("exported the state".to_owned()));
            super::admin::runtime()?.block_on(noted).map_err(failed)?;
            serde_json::to_value(exported).expect("text and numbers can be written as JSON")
        }
        None => ask(control, http::Method::GET, EXPORT_PATH, Vec::new())?,
    }))
}

fn take_over(control: &Control, args: &ImportArgs) -> Result<String, Failure> {
    let name = args.file.display();
    let text = fs::read(&args.file)
        .map_err(|error| Failure::Misused(format!("{name} cannot be read: {}", cause(&error))))?;
    let exported = Exported::parse(&text)
        .map_err(|what| Failure::Misused(format!("{name} is no exported state: {what}")))?;
    let now = SystemTime::now();
    let no_keys = |error: IssuerError| Failure::Failed(error.to_string());
    look_at_clock(&control.folder, now).map_err(no_keys)?;
    let state = State::open_in(&control.store, Purpose::Import, now);
    let state = state.map_err(|error| match error {
        StateError::InUse { .. } => {
            Failure::Failed("the control plane is running: stop it first".to_owned())
        }
        error => failed(error),
    })?;
    // Where there are no keys yet, it begins with new ones.
    Issuer::open(&control.folder, now).map_err(no_keys)?;
    let imported = state.import(&exported, by_hand("imported a state".to_owned()));
    super::admin::runtime()?.block_on(imported).map_err(failed)?;
    Ok(told_number(state.known().number, args.json, "imported, at snapshot"))
}

fn raise_epoch(control: &Control, args: &EpochArgs) -> Result<String, Failure> {
    let number = match opened(control)? {
        Some(state) => {
            let key = signing_key_of_before(&control.folder);
            let key = key.map_err(|e| Failure::Failed(e.to_string()))?;
            let epoch = args.to.unwrap_or(state.known().number.epoch.saturating_add(1));
            let order = EpochOrder::sign(epoch, unix_seconds(SystemTime::now()), &key);
            let audit = by_hand(format!("raised the epoch to {epoch}"));
            super::admin::runtime()?.block_on(state.raise_epoch(&order, audit)).map_err(failed)?
        }
        None => {
            let body = serde_json::json!({ "to": args.to }).to_string().into_bytes();
            understood(&ask(control, http::Method::POST, EPOCH_PATH, body)?)?
        }
    };
    Ok(told_number(number, args.json, "the epoch is raised; the next snapshot follows"))
}

/// The state, if no control plane has it.
fn opened(control: &Control) -> Result<Option<State>, Failure> {
    if let Some(path) = control.store.file()
        && !path.exists()
    {
        let text = format!("there is no {}: no control plane was ever started", path.display());
        return Err(Failure::Failed(text));
    }
    match State::open_in(&control.store, Purpose::GoOn, SystemTime::now()) {
        Ok(state) => Ok(Some(state)),
        Err(StateError::InUse { .. }) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn by_hand(what: String) -> AuditRecord {
    let (at, by) = (unix_seconds(SystemTime::now()), "tidegate control".to_owned());
    AuditRecord { at, by, of: By::Operator, from: None, what }
}

fn told_number(number: Number, json: bool, words: &str) -> String {
    match json {
        true => line(&serde_json::json!(number)),
        false => format!("{words} {number}\n"),
    }
}

fn understood<T: serde::de::DeserializeOwned>(told: &Value) -> Result<T, Failure> {
    serde_json::from_value(told.clone()).map_err(|error| {
        Failure::Failed(format!("the control plane says what is not understood: {error}"))
    })
}

fn line(value: &Value) -> String {
    format!("{value:#}\n")
}

fn failed(error: StateError) -> Failure {
    Failure::Failed(error.to_string())
}
