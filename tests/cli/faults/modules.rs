//! Files that are no module, broken ones, and modules made to
//! cost time or memory before they ever run.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::wasm::{
    HEADER, I32, Module, body, custom, export, leb, section, sized, vector,
};
use crate::support::{Done, Random, TestDir, run, shipped, steps};

/// Neither a hang, nor a panic, nor success, and the file is named.
#[track_caller]
fn assert_refused(done: &Done, path: &Path) {
    done.assert_calm();
    assert!(matches!(done.code, Some(1 | 3)), "{path:?}: {done:?}");
    let name = path.file_name().unwrap().to_string_lossy();
    assert!(
        done.stderr.contains(name.as_ref()),
        "{name}: {}",
        done.stderr
    );
    assert!(done.stdout.is_empty(), "{}", done.text());
}

fn load(dir: &TestDir, path: &Path) -> Done {
    run(path, &[&dir.request()], &[])
}

#[test]
fn i_01_a_truncated_module_is_refused() {
    let dir = TestDir::new();
    let whole = std::fs::read(shipped("rules/rules.wasm")).unwrap();
    let mut cuts: Vec<usize> = vec![1, 3, 4, 5, 7, 8, 9, 10, 11, 20, 64, 100, 1000, 4096];
    cuts.extend((1..12).map(|part| whole.len() * part / 12));
    cuts.extend([whole.len() - 1, whole.len() - 2]);
    for cut in cuts {
        let path = dir.file(&format!("cut-{cut}.wasm"), &whole[..cut]);
        let done = load(&dir, &path);
        assert_refused(&done, &path);
        if cut >= 8 {
            assert!(
                done.stderr.contains("offset 0x") || done.code == Some(1),
                "{}",
                done.stderr
            );
        }
    }
}

#[test]
fn i_01_flipped_bytes_never_crash() {
    let dir = TestDir::new();
    let whole = std::fs::read(shipped("rules/rules.wasm")).unwrap();
    let mut random = Random::seeded("i_01", 0x5eed_0101);
    for number in 0..60 {
        // Most of what can go wrong is in the header and the first sections.
        let bound = if number % 3 == 0 { whole.len() } else { 600 };
        let at = if number < 8 {
            number
        } else {
            random.below(bound)
        };
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << random.below(8);
        let path = dir.file(&format!("flip-{at}.wasm"), &flipped);
        let done = load(&dir, &path);
        done.assert_calm();
        if number < 8 {
            assert_refused(&done, &path);
        }
        if done.stdout.is_empty() {
            assert_refused(&done, &path);
        } else {
            done.json();
        }
    }
}

#[test]
fn i_01_sections_of_any_length_and_order_never_crash() {
    let dir = TestDir::new();
    let module = Module::default().bytes();
    let long = [&[0xff; 4][..], &[0x0f]].concat();
    for id in 0..14_u8 {
        for (kind, content) in [
            ("empty", vec![]),
            ("zero", vec![0]),
            ("huge-count", long.clone()),
            ("endless-number", vec![0x80; 12]),
        ] {
            // Instead of a module, and after a right one.
            for (place, before) in [("alone", HEADER), ("after", module.as_slice())] {
                let bytes = [before, &section(id, &content)].concat();
                let path = dir.file(&format!("{id}-{kind}-{place}.wasm"), bytes);
                let done = load(&dir, &path);
                done.assert_calm();
                if place == "alone" {
                    assert_refused(&done, &path);
                }
            }
        }
        let past_the_end = [HEADER, &[id], long.as_slice()].concat();
        let path = dir.file(&format!("{id}-past-the-end.wasm"), past_the_end);
        assert_refused(&load(&dir, &path), &path);
    }
}

#[test]
fn i_01_other_kinds_of_files_are_refused_by_what_they_are() {
    let dir = TestDir::new();
    let elf = [&b"\x7fELF\x02\x01\x01"[..], &[0; 57]].concat();
    for (name, bytes, code, says) in [
        ("empty.wasm", &b""[..], 3, "empty file"),
        ("zeros.wasm", &[0; 4096], 3, "expected a wasm"),
        ("elf.cwasm", &elf, 3, "ELF"),
        ("packed.wasm.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", 3, "gzip"),
        ("component.wasm", b"\0asm\x0d\0\x01\0", 1, "component"),
        ("version-2.wasm", b"\0asm\x02\0\0\0", 3, "version"),
        ("header-only.wasm", HEADER, 1, "memory"),
        ("note.wasm", b"hello, this is text\n", 3, "text"),
        ("page.wasm", b"<!DOCTYPE html>", 3, "text"),
        ("binary.wat", b"\xca\xfe\xba\xbe\0\0", 3, "ca fe ba be"),
        ("open.wat", b"(module", 3, "assemble"),
        ("word.wat", b"(modul)", 3, "assemble"),
        ("comment.wat", b";; nothing", 3, "assemble"),
        (
            "number.wat",
            b"(module (memory 99999999999999999999))",
            3,
            "assemble",
        ),
        ("nul.wat", b"(module \0)", 3, "assemble"),
    ] {
        let path = dir.file(name, bytes);
        let done = load(&dir, &path);
        assert_refused(&done, &path);
        assert_eq!(done.code, Some(code), "{name}: {}", done.stderr);
        assert!(done.stderr.contains(says), "{name}: {}", done.stderr);
    }
}

#[test]
fn i_01_deep_text_is_refused_and_no_stack_overflows() {
    let dir = TestDir::new();
    for open in [
        "(",
        "(module ",
        "(module (func (block ",
        "(module (func (i32.add ",
    ] {
        let path = dir.file("deep.wat", open.repeat(200_000));
        assert_refused(&load(&dir, &path), &path);
    }
}

#[test]
fn i_01_what_is_no_regular_file_is_refused_without_waiting() {
    let dir = TestDir::new();
    let pipe = dir.path("pipe.wasm");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let folder = dir.path("folder.wasm");
    std::fs::create_dir(&folder).unwrap();
    let loops = dir.path("loop.wasm");
    std::os::unix::fs::symlink(&loops, &loops).unwrap();
    let missing = dir.path("missing.wasm");
    let under_file = dir.file("file", "").join("under.wasm");
    for path in [
        &pipe,
        &folder,
        &loops,
        &missing,
        &under_file,
        Path::new("/dev/zero"),
    ] {
        let done = load(&dir, path);
        assert_refused(&done, path);
        assert_eq!(done.code, Some(3), "{done:?}");
        assert!(done.cpu < Duration::from_secs(10));
    }
}

#[test]
fn i_01_a_huge_file_is_refused_by_its_size() {
    let dir = TestDir::new();
    let path = dir.sparse("huge.wasm", 1 << 30);
    let done = load(&dir, &path);
    assert_refused(&done, &path);
    assert_eq!(done.code, Some(3));
    assert!(done.stderr.contains("--max-module"), "{}", done.stderr);
    assert!(done.peak_kib < 100 << 10, "{} KiB", done.peak_kib);
    // The flag is the limit.
    let fine = dir.file("fine.wasm", Module::default().bytes());
    load(&dir, &fine).assert_code(0);
    let done = run(&fine, &[&dir.request()], &["--max-module", "100B"]);
    assert_eq!(done.code, Some(3), "{done:?}");
}

/// Processor time; compiling may use every core.
const IN_TIME: Duration = Duration::from_secs(15);
const MEMORY_KIB: u64 = 1 << 20;

/// Loads a bomb: it works or it is refused, in bounded time and memory.
#[track_caller]
fn bomb(name: &str, bytes: &[u8]) -> Done {
    let dir = TestDir::new();
    let path = dir.file(name, bytes);
    let done = load(&dir, &path);
    println!(
        "{name}: {:?}, {:?}, {} KiB",
        done.code, done.cpu, done.peak_kib
    );
    assert!(done.cpu < IN_TIME, "{name}: {:?}", done.cpu);
    assert!(done.peak_kib < MEMORY_KIB, "{name}: {} KiB", done.peak_kib);
    assert!(
        done.stderr.len() < 64 << 10,
        "{name}: {} bytes of errors",
        done.stderr.len()
    );
    if done.code != Some(0) {
        assert_refused(&done, &path);
    }
    done
}

/// A bomb that must be refused for this.
#[track_caller]
fn refused_bomb(name: &str, bytes: &[u8], says: &str) {
    let done = bomb(name, bytes);
    assert_refused(&done, Path::new(name));
    assert!(done.stderr.contains(says), "{name}: {}", done.stderr);
}

fn with_handler(locals: &[(usize, u8)], code: Vec<u8>) -> Vec<u8> {
    Module {
        handler: code,
        locals: locals.to_vec(),
        ..Module::default()
    }
    .bytes()
}

fn nested(opcode: u8, depth: usize) -> Vec<u8> {
    let mut code = [opcode, 0x40].repeat(depth);
    code.extend(vec![0x0b; depth]);
    code
}

#[test]
fn i_02_functions_that_are_too_much_are_refused_before_compiling() {
    refused_bomb(
        "loops.wasm",
        &with_handler(&[], nested(0x03, 11_000)),
        "nested blocks",
    );
    refused_bomb(
        "blocks.wasm",
        &with_handler(&[], nested(0x02, 150_000)),
        "nested blocks",
    );
    refused_bomb(
        "large.wasm",
        &with_handler(&[], vec![0x01; 7_600_000]),
        "bytes in one function",
    );
    refused_bomb(
        "locals.wasm",
        &with_handler(&[(50_000, I32)], vec![]),
        "locals",
    );
    // Counts that only make sense together.
    refused_bomb(
        "groups.wasm",
        &with_handler(&vec![(1, I32); 2001], vec![]),
        "locals",
    );
    refused_bomb(
        "overflow.wasm",
        &with_handler(&[(0xffff_ffff, I32), (0xffff_ffff, I32)], vec![]),
        "locals",
    );
    let mut table = vec![0x02, 0x40, 0x20, 0, 0x0e];
    table.extend(leb(1_000_000));
    table.extend(vec![0; 1_000_001]);
    table.push(0x0b);
    refused_bomb(
        "br-table.wasm",
        &with_handler(&[], table),
        "bytes in one function",
    );
}

#[test]
fn i_02_modules_that_are_too_much_are_refused_before_compiling() {
    let functions = |count: usize| Module {
        functions: vec![body(&[], &[]); count],
        ..Module::default()
    };
    for count in [20_000, 300_000, 1_000_000] {
        let says = "at most 20000 functions";
        refused_bomb("functions.wasm", &functions(count).bytes(), says);
    }
    let segments = |data, elements| {
        Module {
            data,
            elements,
            ..Module::default()
        }
        .bytes()
    };
    refused_bomb("data.wasm", &segments(110_000, 0), "data segments");
    refused_bomb("elements.wasm", &segments(0, 40_000), "element segments");
}

#[test]
fn i_02_what_lies_just_under_the_limits_loads_in_time() {
    let fits = |name, bytes: Vec<u8>| {
        assert_eq!(bomb(name, &bytes).code, Some(0), "{name}");
    };
    let functions = Module {
        functions: vec![body(&[], &[]); 19_997],
        ..Module::default()
    };
    fits("functions.wasm", functions.bytes());
    let segments = Module {
        data: 99_999,
        elements: 10_000,
        ..Module::default()
    };
    fits("segments.wasm", segments.bytes());
    fits("locals.wasm", with_handler(&[(2000, I32)], vec![]));
    fits("nested.wasm", with_handler(&[], nested(0x02, 1000)));
    // local.get 0, i32.const 1, i32.add, local.set 0: half a megabyte of it.
    fits(
        "long.wasm",
        with_handler(&[], [0x20, 0, 0x41, 1, 0x6a, 0x21, 0].repeat(74_800)),
    );
    let mut table = vec![0x02, 0x40, 0x20, 0, 0x0e];
    table.extend(leb(60_000));
    table.extend(vec![0; 60_001]);
    table.push(0x0b);
    fits("br-table.wasm", with_handler(&[], table));
}

/// Loops in loops, each of which carries every local: quadratic for a
/// compiler.
#[test]
fn i_02_loops_that_carry_many_locals_end_in_time() {
    let mut code = Vec::new();
    for depth in 0..999_usize {
        code.extend([0x03, 0x40]);
        for local in [depth * 2, depth * 2 + 1] {
            code.push(0x20);
            code.extend(leb(2 + local));
            code.extend([0x41, 1, 0x6a, 0x21]);
            code.extend(leb(2 + local));
        }
    }
    for depth in 0..999_usize {
        code.push(0x20);
        code.extend(leb(2 + depth));
        code.extend([0x0d, 0, 0x0b]); // br_if 0, end
    }
    bomb("loops.wasm", &with_handler(&[(2000, I32)], code));
}

/// Small in the file, large once each entry has a copy of its type's text.
#[test]
fn i_02_long_types_are_not_copied_for_each_use() {
    let wide = [vec![0x60], leb(1000), vec![I32; 1000], vec![0]].concat();
    let functions = vec![body(&[], &[]); 1];
    let exports = |count: usize| -> Vec<Vec<u8>> {
        (0..count)
            .map(|number| export(&format!("e{number}"), 0, 3))
            .collect()
    };
    let mut module = Module {
        types: vec![wide.clone()],
        functions,
        exports: exports(200_000),
        ..Module::default()
    };
    // The one further function gets the wide type.
    let bytes = module.bytes();
    let from = section(3, &vector(&[vec![0], vec![1], vec![2], vec![3]]));
    let to = section(3, &vector(&[vec![0], vec![1], vec![2], vec![4]]));
    let at = bytes
        .windows(from.len())
        .position(|window| window == from)
        .unwrap();
    let patched = [&bytes[..at], &to, &bytes[at + from.len()..]].concat();
    bomb("exports.wasm", &patched);
    module.exports.clear();
    module.types = vec![wide; 40_000];
    bomb("types.wasm", &module.bytes());
}

#[test]
fn i_02_sections_of_millions_of_entries_end_in_bounded_memory() {
    let many = |id: u8, item: &[u8], count: usize| {
        let mut content = leb(count);
        content.extend(item.repeat(count));
        [HEADER, &section(id, &content)].concat()
    };
    bomb("types.wasm", &many(1, &[0x60, 0, 0], 15_000_000));
    bomb("imports.wasm", &many(2, &[0, 0, 3, I32, 0], 10_000_000));
    bomb("functions.wasm", &many(3, &[0], 40_000_000));
    bomb("memories.wasm", &many(5, &[0, 0], 20_000_000));
    bomb("exports.wasm", &many(7, &[0, 0, 0], 15_000_000));
    let custom = [HEADER, &custom("x", b"").repeat(10_000_000)].concat();
    bomb("custom.wasm", &custom);
}

/// The syntax tree of text is many times its size.
#[test]
fn i_02_text_is_bounded_more_tightly_than_binaries() {
    let text = |size: usize| format!("(module{})", "(func)".repeat(size / 6));
    refused_bomb("text.wat", text((8 << 20) + 100).as_bytes(), "wasm text");
    let done = bomb("fits.wat", text((8 << 20) - 100).as_bytes());
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("functions"), "{}", done.stderr);
}

#[test]
fn i_02_names_of_any_number_and_length_are_read_in_time() {
    let imports = |count: usize| {
        let content = [leb(count), [0, 0, 3, I32, 0].repeat(count)].concat();
        [HEADER, &section(2, &content)].concat()
    };
    refused_bomb("imports.wasm", &imports(900_000), "imports");
    let with_exports = |exports: Vec<Vec<u8>>| {
        // No alloc, so that a name near to it is looked for.
        let all = vector(&exports);
        [
            HEADER,
            &section(5, &[1, 0, 1]),
            &section(6, &[1, I32, 0, 0x41, 0, 0x0b]),
            &section(7, &all),
        ]
        .concat()
    };
    let many = (0..900_000).map(|number| export(&format!("on_request_{number}"), 3, 0));
    refused_bomb("exports.wasm", &with_exports(many.collect()), "alloc");
    // Functions with long names are what a misspelling is looked for among.
    let long = Module {
        functions: vec![body(&[], &[])],
        exports: (0..500)
            .map(|number| export(&format!("{number:060000}"), 0, 3))
            .collect(),
        ..Module::default()
    };
    bomb("names.wasm", &long.bytes());
}

#[test]
fn i_02_compiling_is_given_up_after_its_time() {
    let dir = TestDir::new();
    let path = shipped("rules/rules.wasm");
    let done = run(&path, &[&dir.request()], &["--max-compile-time", "1ms"]);
    assert_refused(&done, &path);
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("--max-compile-time"),
        "{}",
        done.stderr
    );
}

/// Each entry is compared with those before it, unless there is a limit.
#[test]
fn i_03_a_million_producers_are_read_in_time() {
    let value = |number: usize| [sized(format!("{number:07}").as_bytes()), vec![0]].concat();
    let values: Vec<Vec<u8>> = (0..1_000_000).map(value).collect();
    let field = [sized(b"language"), vector(&values)].concat();
    let module = Module {
        last: custom("producers", &vector(&[field])),
        ..Module::default()
    };
    assert_eq!(bomb("producers.wasm", &module.bytes()).code, Some(0));
}

#[test]
fn i_03_a_large_custom_section_costs_no_more_than_its_bytes() {
    let dir = TestDir::new();
    let module = |name: &str, size: usize| {
        Module {
            last: custom(name, &vec![0x5a; size]),
            ..Module::default()
        }
        .bytes()
    };
    let path = dir.file("debug.wasm", module(".debug_info", 100_000_000));
    let done = load(&dir, &path);
    assert_refused(&done, &path);
    assert_eq!(done.code, Some(3));
    for name in [".debug_info", "name", "producers", ".debug_line", "x"] {
        let path = dir.file("debug.wasm", module(name, 100_000_000));
        let done = run(&path, &[&dir.request()], &["--max-module", "200MB"]);
        done.assert_code(0);
        steps(&done.json())[0].assert_allowed();
        assert!(done.cpu < IN_TIME, "{name}: {:?}", done.cpu);
        assert!(done.peak_kib < MEMORY_KIB, "{name}: {} KiB", done.peak_kib);
    }
}

/// A trap whose frames have names of a megabyte.
#[test]
fn i_03_long_names_are_cut_in_a_backtrace() {
    let dir = TestDir::new();
    let long = "n".repeat(1_000_000);
    let names = vector(&[[leb(2), sized(long.as_bytes())].concat()]);
    let module = Module {
        handler: vec![0x00],
        last: custom("name", &[vec![1], sized(&names)].concat()),
        ..Module::default()
    };
    let path = dir.file("names.wasm", module.bytes());
    let done = load(&dir, &path);
    done.assert_code(1);
    assert!(done.text().contains("nnnnn"));
    assert!(done.stdout.len() < 20_000, "{} bytes", done.stdout.len());
}
