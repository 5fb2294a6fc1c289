//! `validate`: arguments to settings, the operation, its report to a renderer.

use std::path::{Path, PathBuf};

use crate::guest::engine::{Engine, EngineSettings};
use crate::ops::validate::{self, Probing, ValidateReport, ValidateSettings};
use crate::report::Report as _;
use anyhow::Result;
use bytesize::ByteSize;
use clap::Args;

use super::render::human::Style;
use super::render::{self, OutputArgs, ReportFiles};
use super::{GuestArgs, exit};

const EXAMPLES: &str = "Examples:
  wasm-agent validate rules.wasm
  wasm-agent validate build/*.wasm --torture --deny-warnings
  wasm-agent validate rules.wasm --no-probe --format json
  wasm-agent validate rules.wasm --max-growth 0 --report sarif=rules.sarif

Checks, by their ids:
  size features complexity abi memory export:* tables import:* start   the file itself
  compile instantiate                                                  it compiles and starts
  answer:* dealloc:* empty:* keys:* status:* redirect:* headers:*      sample events, by handler
  replaced:*           cookies and lists of the upstream are kept
  determinism          equal calls give equal answers and cost equal fuel
  header-spelling      decisions do not depend on the spelling of header names
  growth               memory is freed; bytes kept for each call, or the most that can be
  growth:bodies        bodies in chunks are freed, also those that never end
  bodies:*             decisions do not depend on how a body is cut, or which instance is asked
  state                answers do not depend on earlier calls, as far as they were tried
  torture:*            unusual and broken inputs (--torture)";

/// Check that modules keep the contract: exports, types, imports, behaviour
///
/// Every problem is found in one pass. The module is called with sample events
/// under the limits of production, unless --no-probe is given.
#[derive(Debug, Args)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct ValidateArgs {
    /// Modules, .wasm or .wat
    #[arg(value_name = "MODULE", required = true, num_args = 1..)]
    modules: Vec<PathBuf>,

    /// Check the file only; do not call the module
    #[arg(long)]
    no_probe: bool,

    /// Also call the module with empty, huge, unusual and broken input
    #[arg(long, conflicts_with = "no_probe")]
    torture: bool,

    /// Fail if a call keeps more memory than this, or may do so unseen (up to 128 bytes always may) [default: warn only]
    #[arg(long, value_name = "SIZE", conflicts_with = "no_probe")]
    max_growth: Option<ByteSize>,

    /// Fail on warnings
    #[arg(long)]
    deny_warnings: bool,

    #[command(flatten)]
    guest: GuestArgs,

    #[command(flatten)]
    output: OutputArgs<ValidateReport>,
}

/// Runs the command and says how the process is to exit.
pub(crate) fn exec(args: &ValidateArgs, style: Style) -> Result<u8> {
    let read: Vec<&Path> = args.modules.iter().map(PathBuf::as_path).collect();
    let files = ReportFiles::open(&args.output.reports, &read)?;
    let engine = Engine::new(EngineSettings {
        fuel: true,
        debug_lines: true,
        ..EngineSettings::default()
    })?;
    let report = validate::validate(&engine, &args.modules, &settings(args))?;
    for module in &report.modules {
        render::warn(module.unused_flag.as_ref());
    }
    render::report(&report, (args.output.format, files), style)?;
    Ok(exit::of_verdict(report.verdict()))
}

fn settings(args: &ValidateArgs) -> ValidateSettings {
    ValidateSettings {
        load: args.guest.load(),
        probing: match (args.no_probe, args.torture) {
            (true, _) => Probing::Static,
            (false, false) => Probing::Samples,
            (false, true) => Probing::Torture,
        },
        header_names: args.guest.header_names(),
        answer_policy: args.guest.answer_policy(),
        bodies: args.guest.bodies(),
        isolation: args.guest.isolation(),
        max_growth_bytes: args.max_growth.map(|size| size.as_u64()),
        deny_warnings: args.deny_warnings,
    }
}
