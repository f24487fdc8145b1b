//! The command line: from arguments to an exit code. How the work is done is known elsewhere.

mod models;
mod serve;
mod verify;

use std::io::{self, BufRead as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::catalogue::{Catalogue, Source};
use crate::clock::hex;
use crate::config::{self, Config};
use crate::openapi::Document;
use crate::{app, tenants};

/// What a wrong configuration or a start that fails ends with.
const UNUSABLE: u8 = 2;

#[derive(Parser)]
#[command(name = "kiegate", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Run until SIGTERM or SIGINT (also what `kiegate` alone does)
    Serve(ServeArgs),
    /// Check configuration, secrets and catalogue; exit 0 if all is well, 2 if not
    Check {
        #[command(flatten)]
        layers: Layers,
    },
    /// Read a key on stdin and print its hash for the configuration file
    Hash,
    /// Print operations, models, prices and outcomes
    Models {
        /// Only this family
        #[arg(long)]
        family: Option<String>,
        /// For machines
        #[arg(long)]
        json: bool,
        /// Folder whose files override the catalogue's
        #[arg(long, value_name = "DIR")]
        catalog: Option<PathBuf>,
    },
    /// Print the OpenAPI document of the emulated API
    Openapi {
        /// Folder whose files override the catalogue's
        #[arg(long, value_name = "DIR")]
        catalog: Option<PathBuf>,
    },
    /// Send recorded requests to a fresh simulator and report where it behaves in another way; exit 0 if nowhere, 1 if
    /// somewhere, 2 if a recording cannot be read
    Verify {
        /// HAR files, or folders of them
        #[arg(required = true, value_name = "RECORDING")]
        recordings: Vec<PathBuf>,
        /// For machines
        #[arg(long)]
        json: bool,
        /// Folder whose files override the catalogue's
        #[arg(long, value_name = "DIR")]
        catalog: Option<PathBuf>,
    },
    /// Ask a running gateway whether it is ready; exit 0 if so
    Health {
        /// Its admin plane
        #[arg(long, default_value = "http://127.0.0.1:8788", value_name = "URL")]
        admin: String,
    },
    /// Print a completion script
    Completions {
        /// For this shell
        shell: Shell,
    },
}

/// Where the configuration comes from, on every command that reads it.
#[derive(Args, Clone, Default)]
struct Layers {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Args, Clone, Default)]
struct ServeArgs {
    #[command(flatten)]
    layers: Layers,
    /// Which upstream answers: mock, live, record or replay
    #[arg(long)]
    mode: Option<String>,
    /// Address of the data plane
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address of the admin plane
    #[arg(long, value_name = "ADDR")]
    admin_listen: Option<String>,
    /// Folder for state that outlives the process
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Folder whose files override the catalogue's
    #[arg(long, value_name = "DIR")]
    catalog: Option<String>,
    /// File that is replayed or written
    #[arg(long, value_name = "FILE")]
    recording: Option<String>,
}

impl ServeArgs {
    /// The configuration that flags, environment and file make together.
    fn config(&self) -> Result<Config, config::ConfigError> {
        let flags = [
            ("mode", &self.mode),
            ("listen", &self.listen),
            ("admin.listen", &self.admin_listen),
            ("data_dir", &self.data_dir),
            ("catalog", &self.catalog),
            ("recording", &self.recording),
        ];
        let flags = flags.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        // A variable that is no text can be none of ours, nor one that a reference names.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        config::load(self.layers.config.as_deref(), std::env::vars_os().filter_map(text), flags)
    }
}

/// Runs the command line and gives the exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => serve::run(&cli.serve),
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::Check { layers }) => check(&ServeArgs { layers, ..ServeArgs::default() }),
        Some(Command::Hash) => hash(),
        Some(Command::Models { family, json, catalog }) => models::run(family.as_deref(), json, catalog),
        Some(Command::Openapi { catalog }) => document(catalog),
        Some(Command::Verify { recordings, json, catalog }) => verify::run(&recordings, json, catalog),
        Some(Command::Health { admin }) => serve::health(&admin),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kiegate", &mut script);
            print(&script)
        }
    }
}

/// Writes to standard output.
fn print(text: &[u8]) -> ExitCode {
    match io::stdout().lock().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has enough, `head` for instance.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => complain(&format!("cannot write: {error}")),
    }
}

/// Says on standard error what keeps a command from its work.
fn complain(what: &dyn std::fmt::Display) -> ExitCode {
    let text = what.to_string();
    let _ = writeln!(io::stderr(), "kiegate: {}", text.trim_end());
    ExitCode::from(UNUSABLE)
}

fn check(args: &ServeArgs) -> ExitCode {
    let config = match args.config() {
        Ok(config) => config,
        Err(error) => return complain(&error),
    };
    let catalogue = match app::catalogue(&config) {
        Ok(catalogue) => catalogue,
        Err(error) => return complain(&error),
    };
    if let Err(problems) = catalogue.check_deeply() {
        return complain(&app::StartError::Catalogue(problems));
    }
    for doubt in app::doubts(&config, &catalogue) {
        let _ = writeln!(io::stderr(), "kiegate: {doubt}");
    }
    let counts = (catalogue.operations().count(), catalogue.models().count());
    let _ = writeln!(
        io::stdout(),
        "ok: mode {}, {} operations, {} models",
        config.mode.as_str(),
        counts.0,
        counts.1
    );
    ExitCode::SUCCESS
}

fn hash() -> ExitCode {
    let mut key = String::new();
    if let Err(error) = io::stdin().lock().read_line(&mut key) {
        return complain(&format!("cannot read the key: {error}"));
    }
    let key = key.trim_end_matches(['\r', '\n']);
    if key.is_empty() {
        return complain(
            &"no key on standard input; write it there, as in: printf %s \"$KEY\" | kiegate hash",
        );
    }
    let _ = writeln!(io::stdout(), "sha256:{}", hex(&tenants::hash(key)));
    ExitCode::SUCCESS
}

/// Prints what a gateway with the files of `folder` answers to `GET /openapi.json`.
fn document(folder: Option<PathBuf>) -> ExitCode {
    match catalogue(folder) {
        Ok(catalogue) => print(&Document::new(Arc::new(catalogue)).text()),
        Err(error) => complain(&error),
    }
}

/// The catalogue that is compiled in, with the files of `folder` over it.
fn catalogue(folder: Option<PathBuf>) -> Result<Catalogue, app::StartError> {
    let source = folder.map_or_else(|| Ok(Source::embedded()), |folder| Source::with_overrides(&folder));
    source.and_then(|source| Catalogue::load(&source)).map_err(app::StartError::Catalogue)
}
