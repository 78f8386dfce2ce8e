//! From FASTA to a vocabulary, to codes, and back.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{BRIEFLY, Folder, Outcome, bases, finish, record, small_genome};

/// What can be written; `-` is standard output.
const OUTPUTS: [&str; 4] = ["codes.parquet", "codes.npy", "codes.tsv", "-"];

/// Bases of the long record of [`hard_genome`]: more than a row of codes, so that shards divide it.
const LONG: usize = 17_500;

/// A genome with all that a genome may hold, in a folder with a vocabulary.
pub(crate) fn hard_genome() -> Folder {
    let mut long = bases(3, LONG);
    long.replace_range(300..420, &bases(4, 120).to_lowercase());
    long.replace_range(5000..5040, &"N".repeat(40));
    long.replace_range(9000..9001, "R");
    long.replace_range(12_000..12_003, "nnn");
    let ends_in_gaps = format!("NNNNNNNNNN{}NNNNN", bases(5, 3000));
    let records = [
        ("long chromosome", long.as_str()),
        ("empty", ""),
        ("one", "a"),
        ("short", "ACgtN"),
        ("gap", "NNNNNNNN"),
        ("scaffold", &ends_in_gaps),
    ];
    let folder = Folder::with_vocabulary();
    folder.write("genome.fa", records.map(|(name, bases)| record(name, bases)).concat());
    folder
}

/// Tokenizes the genome and returns all bytes that were written.
#[track_caller]
pub(crate) fn tokenize(folder: &Folder, output: &str, options: &str) -> Vec<u8> {
    let outcome = folder.ok(&format!("tokenize model genome.fa -o {output} {options}"));
    written(folder, output, &outcome)
}

#[track_caller]
fn written(folder: &Folder, output: &str, outcome: &Outcome) -> Vec<u8> {
    let mut bytes = if output == "-" { outcome.stdout.clone() } else { folder.read(output) };
    if output == "codes.npy" {
        bytes.extend(folder.read(&format!("{output}.records.tsv")));
    }
    bytes
}

#[track_caller]
fn assert_division_does_not_matter(settings: &str) {
    let folder = hard_genome();
    for output in OUTPUTS {
        let whole = tokenize(&folder, output, settings);
        assert!(whole.len() > LONG, "{output}");
        for division in ["--chunk 64", "--chunk 1000 --batch 5", "--chunk 100000 --batch 1", "--threads 2"] {
            let divided = tokenize(&folder, output, &format!("{settings} {division}"));
            assert!(divided == whole, "{output} with {settings} changes with {division}");
        }
        let shards: Vec<String> = (1..=3)
            .map(|i| {
                let shard = if output == "-" { format!("{i}.tsv") } else { format!("{i}.{output}") };
                let options = format!("tokenize model genome.fa --shard {i}/3 {settings} -o");
                if output == "-" {
                    folder.write(&shard, folder.ok(&format!("{options} -")).stdout);
                } else {
                    folder.ok(&format!("{options} {shard}"));
                }
                shard
            })
            .collect();
        let outcome = folder.ok(&format!("merge {} -o {output}", shards.join(" ")));
        assert!(written(&folder, output, &outcome) == whole, "{output} with {settings} changes with --shard");
    }
}

#[test]
fn codes_do_not_depend_on_the_division_of_the_work() {
    assert_division_does_not_matter("");
}

#[test]
fn codes_of_both_strands_and_of_cut_sequences_do_not_depend_on_it_either() {
    assert_division_does_not_matter("--strand both --ambiguous split");
}

#[test]
fn codes_in_bf16_do_not_depend_on_it_either() {
    assert_division_does_not_matter("--precision bf16");
}

#[test]
fn a_vocabulary_learned_in_bf16_is_a_vocabulary() {
    let folder = Folder::new();
    folder.write("genome.fa", small_genome());
    folder.ok(&format!("learn genome.fa -o model --steps 3 {BRIEFLY} --precision bf16"));
    assert!(folder.text("model/config.toml").contains("precision = \"bf16\""));
    folder.ok("tokenize model genome.fa -o codes.tsv --precision bf16");
    folder.ok("decode model codes.tsv -o decoded.fa");
}

/// Names and lengths of the records of a FASTA text.
fn lengths(fasta: &str) -> Vec<(&str, usize)> {
    let mut records = Vec::new();
    for line in fasta.lines() {
        match line.strip_prefix('>') {
            Some(name) => records.push((name, 0)),
            None => records.last_mut().expect("a header comes first").1 += line.len(),
        }
    }
    records
}

#[test]
fn every_format_decodes_to_the_same_bases() {
    let folder = hard_genome();
    for settings in ["", "--strand both --ambiguous split --soft-mask drop"] {
        let mut decoded = Vec::new();
        for output in OUTPUTS {
            let codes = tokenize(&folder, output, settings);
            if output == "-" {
                let outcome = folder.run_on("decode model - -o -", &codes);
                assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
                decoded.push(outcome.stdout);
            } else {
                folder.ok(&format!("decode model {output} -o decoded.fa"));
                decoded.push(folder.read("decoded.fa"));
            }
        }
        assert!(decoded.iter().all(|fasta| *fasta == decoded[0]), "{settings}");
        folder.ok("decode model codes.tsv -o decoded.fa --chunk 50 --threads 2");
        assert!(folder.read("decoded.fa") == decoded[0], "{settings}: changes with --chunk");
        folder.ok("merge codes.parquet -o merged.tsv");
        assert!(folder.read("merged.tsv") == folder.read("codes.tsv"), "{settings}: one format becomes another");

        let text = String::from_utf8(decoded.swap_remove(0)).expect("text");
        let lengths = lengths(&text);
        if settings.is_empty() {
            // One base each, N included; a record without bases has no codes to come back from.
            assert_eq!(lengths, [("long", LONG), ("one", 1), ("short", 5), ("gap", 8), ("scaffold", 3015)]);
        } else {
            let total: usize = lengths.iter().map(|(_, length)| length).sum();
            let (kept, strands) = (LONG - 120 - 40 - 1 - 3 + 2 + 3000, 2);
            assert_eq!(total, strands * kept);
            assert!(lengths.iter().any(|(name, _)| name.contains("(-)")), "{lengths:?}");
        }
    }
}

#[test]
fn codes_of_a_region_are_those_of_the_whole() {
    let folder = hard_genome();
    let text = folder.read("genome.fa");
    let mut bgzip = noodles_bgzf::io::Writer::new(Vec::new());
    for block in text.chunks(5000) {
        bgzip.write_all(block).expect("written");
        bgzip.flush().expect("written");
    }
    folder.write("blocks.fa.gz", bgzip.finish().expect("written"));
    folder.write("stream.fa.gz", gzip(&text));
    for settings in ["", "--strand both --ambiguous split"] {
        let whole = String::from_utf8(tokenize(&folder, "-", settings)).expect("text");
        for (region, record, start, end) in [
            ("long", "long", 0, LONG),
            ("long:1-1", "long", 0, 1),
            ("long:4,990-5,060", "long", 4989, 5060),
            ("long:16,000-17,000", "long", 15_999, 17_000),
            ("long:17490", "long", 17_489, LONG),
            ("short:2-3", "short", 1, 3),
            ("one", "one", 0, 1),
            ("empty", "empty", 0, 0),
            ("gap:3-4", "gap", 2, 4),
            ("scaffold:5-99999", "scaffold", 4, 3015),
        ] {
            let lies_inside = |line: &&str| {
                let fields: Vec<&str> = line.split('\t').collect();
                let place = |i: usize| fields[i].parse::<usize>().expect("a number");
                line.starts_with('#')
                    || fields[0] == "record"
                    || (fields[0] == record && place(1) >= start && place(2) <= end)
            };
            let expected: String = whole.lines().filter(lies_inside).fold(String::new(), |mut text, line| {
                let _ = writeln!(text, "{line}");
                text
            });
            for file in ["genome.fa", "blocks.fa.gz", "stream.fa.gz"] {
                let outcome = folder.ok(&format!("tokenize model {file} -o - --region {region} {settings}"));
                assert!(outcome.stdout == expected.as_bytes(), "{region} of {file} with {settings}");
                // Counted are the bases asked for, without their neighbourhood.
                let counted = match end - start {
                    1 => "1 base in 1 record".to_owned(),
                    bases => format!("{bases} bases in 1 record"),
                };
                assert!(outcome.stderr.starts_with(&counted), "{region}: {}", outcome.stderr);
            }
        }
    }
    assert!(folder.path("genome.fa.fai").exists() && folder.path("blocks.fa.gz.gzi").exists());
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).expect("written");
    gzip.finish().expect("written")
}

#[test]
fn input_may_be_compressed_or_come_through_a_pipe() {
    let folder = hard_genome();
    let plain = tokenize(&folder, "codes.parquet", "");
    let text = folder.read("genome.fa");
    for input in [&text, &gzip(&text)] {
        let outcome = folder.run_on("tokenize model - -o piped.parquet", input);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert!(folder.read("piped.parquet") == plain);
    }
    // The name says nothing; the content does.
    folder.write("genome.txt", gzip(&text));
    folder.ok("tokenize model genome.txt -o compressed.parquet");
    assert!(folder.read("compressed.parquet") == plain);
    // Several files are one genome.
    let cut = text.windows(4).position(|window| window == b">gap").expect("there");
    folder.write("first.fa", &text[..cut]);
    folder.write("second.fa.gz", gzip(&text[cut..]));
    folder.ok("tokenize model first.fa second.fa.gz -o several.parquet");
    assert!(folder.read("several.parquet") == plain);
}

#[test]
fn what_was_met_is_counted() {
    let folder = hard_genome();
    let said = folder.ok("tokenize model genome.fa -o codes.npy").stderr;
    for part in ["20529 bases in 6 records", "empty records: 1", "ambiguous letters: 68", "soft-masked bases: 126"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = folder.ok("tokenize model genome.fa -o codes.npy --ambiguous split --soft-mask drop").stderr;
    assert!(said.contains("dropped bases: 191"), "{said}");
}

#[test]
fn a_reader_may_leave_early() {
    let folder = hard_genome();
    tokenize(&folder, "codes.tsv", "");
    let lines = ["tokenize model genome.fa -o -", "decode model codes.tsv -o -", "inspect model", "doctor"];
    for (line, takes) in lines.into_iter().flat_map(|line| [(line, 1), (line, 0)]) {
        let mut child = folder.command(line).spawn().expect("started");
        let mut reader = BufReader::new(child.stdout.take().expect("piped"));
        for _ in 0..takes {
            reader.read_line(&mut String::new()).expect("a line");
        }
        drop(reader);
        let outcome = finish(child);
        assert_eq!(outcome.code, Some(0), "{line}: {}", outcome.stderr);
        assert!(
            !outcome.stderr.contains("error") && !outcome.stderr.contains("panicked"),
            "{line}: {}",
            outcome.stderr
        );
    }
    // Messages that nobody reads do not stop the work.
    let mut child = folder.command("tokenize model genome.fa -o unheard.tsv").spawn().expect("started");
    drop(child.stderr.take());
    assert_eq!(finish(child).code, Some(0));
    assert!(folder.read("unheard.tsv") == folder.read("codes.tsv"));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let folder = hard_genome();
    tokenize(&folder, "codes.tsv", "");
    let decode = "decode model codes.tsv -o decoded.fa --original genome.fa";
    for line in ["tokenize model genome.fa -o -", "decode model codes.tsv -o -", decode, "inspect model", "doctor"] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("there");
        let outcome = finish(folder.command(line).stdout(full).spawn().expect("started"));
        assert_eq!(outcome.code, Some(2), "{line}: {}", outcome.stderr);
        let last = outcome.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains("No space left"), "{line}: {}", outcome.stderr);
    }
}

#[cfg(unix)]
#[test]
fn a_named_pipe_is_written_and_stays() {
    use std::os::unix::fs::FileTypeExt;
    let folder = hard_genome();
    tokenize(&folder, "codes.tsv", "");
    folder.ok("decode model codes.tsv -o decoded.fa");
    let pipe = folder.path("pipe.fa");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    let mut reader = Command::new("cat").arg(&pipe).stdout(Stdio::piped()).spawn().expect("cat runs");
    let outcome = folder.run("decode model codes.tsv -o pipe.fa");
    let is_pipe = fs::metadata(&pipe).expect("there").file_type().is_fifo();
    if !is_pipe || outcome.code != Some(0) {
        reader.kill().expect("stopped");
    }
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(is_pipe, "a file has taken the place of the pipe");
    assert!(reader.wait_with_output().expect("ended").stdout == folder.read("decoded.fa"));
}

#[test]
fn decode_measures_how_much_is_right() {
    let folder = hard_genome();
    tokenize(&folder, "codes.npy", "--strand both");
    let outcome = folder.ok("decode model codes.npy -o decoded.fa --original genome.fa");
    let number = |name| outcome.value(name).parse::<f64>().expect("a number");
    // Both strands, without the 68 letters that are N.
    assert_eq!(number("compared"), 2.0 * (20_529.0 - 68.0));
    assert!((number("reconstruction") - number("right") / number("compared")).abs() < 1e-6);

    // Counted independently, on the forward strand.
    tokenize(&folder, "codes.npy", "");
    let outcome = folder.ok("decode model codes.npy -o decoded.fa --original genome.fa");
    let letters = |text: String| -> Vec<u8> {
        let lines = text.lines().filter(|line| !line.starts_with('>'));
        lines.flat_map(|line| line.to_ascii_uppercase().into_bytes()).collect()
    };
    let (original, decoded) = (letters(folder.text("genome.fa")), letters(folder.text("decoded.fa")));
    let known = |letter: &u8| b"ACGT".contains(letter);
    let right = original.iter().zip(&decoded).filter(|(a, b)| known(a) && a == b).count();
    assert_eq!(outcome.value("right"), right.to_string());
    assert!(right > original.len() / 3, "better than chance: {right}");

    // The table makes way for bases on stdout.
    let outcome = folder.ok("decode model codes.npy -o - --original genome.fa");
    assert!(outcome.stdout == folder.read("decoded.fa"));
    assert!(outcome.stderr.contains(&format!("right\t{right}")), "{}", outcome.stderr);
}

#[test]
fn a_model_folder_tells_how_it_was_made() {
    let folder = Folder::new();
    folder.write("genome.fa", small_genome());
    let line = format!("learn genome.fa -o runs/a --steps 3 --seed 7 --set data.split.valid=0.2 {BRIEFLY}");
    let outcome = folder.ok(&line);
    assert_eq!(outcome.value("measure"), "valid");
    assert!((0.0..=1.0).contains(&outcome.value("reconstruction").parse::<f64>().expect("a number")));
    for name in ["config.json", "config.toml", "metrics.jsonl", "model.safetensors", "README.md", "run.json"] {
        assert!(!folder.read(&format!("runs/a/{name}")).is_empty());
    }
    let run: serde_json::Value = serde_json::from_slice(&folder.read("runs/a/run.json")).expect("JSON");
    assert_eq!((&run["steps"], &run["config"]["seed"]), (&3.into(), &7.into()));
    assert_eq!(run["inputs"][0]["bases"], 3000);
    assert!(run["command_line"].as_array().is_some_and(|words| words.iter().any(|word| word == "genome.fa")));

    // Its config and its input repeat it.
    folder.ok("learn genome.fa -o runs/b --preset base --quantizer vq --config runs/a/config.toml");
    assert!(folder.read("runs/a/model.safetensors") == folder.read("runs/b/model.safetensors"));

    // A folder that was moved is whole.
    fs::rename(folder.path("runs/a"), folder.path("moved")).expect("moved");
    folder.ok("tokenize moved genome.fa -o codes.tsv");
}

#[test]
fn a_pretrained_model_goes_the_whole_way() {
    let folder = hard_genome();
    let line = format!("pretrain model genome.fa -o runs/a --steps 4 --seed 7 --set data.split.valid=0.2 {BRIEFLY}");
    let outcome = folder.ok(&line);
    assert_eq!(outcome.value("measure"), "valid");
    for name in ["loss", "accuracy_1", "cross_entropy_nats_2", "masked_code_bits_single", "masked_code_bits_span"] {
        assert!(outcome.value(name).parse::<f64>().is_ok_and(f64::is_finite), "{name}: {}", outcome.text());
    }
    // Uniform guesses among 64 and 128 codes take 13 bits.
    let bits: f64 = outcome.value("masked_code_bits_span").parse().expect("a number");
    assert!((5.0..20.0).contains(&bits), "{bits}");
    for name in ["config.json", "config.toml", "metrics.jsonl", "model.safetensors", "README.md", "run.json"] {
        assert!(!folder.read(&format!("runs/a/{name}")).is_empty());
    }
    let json = |name: &str| serde_json::from_slice::<serde_json::Value>(&folder.read(name)).expect("JSON");
    let (config, run) = (json("runs/a/config.json"), json("runs/a/run.json"));
    assert_eq!((&config["architectures"][0], &config["model_type"]), (&"VqdnaForMaskedLM".into(), &"vqdna".into()));
    assert_eq!((&config["tokenizer"]["kind"], &config["objective"]["kind"]), (&"vqdna".into(), &"masked".into()));
    assert_eq!((&config["backbone"]["pool"], &run["steps"]), (&1.into(), &4.into()));
    assert_eq!(run["vocabulary"], config["vocabulary"]);
    assert_eq!(run["vocabulary"].as_str(), Some(folder.ok("inspect model").value("model")));
    assert!(folder.text("runs/a/README.md").contains("pre-trained"));

    // Its config and its inputs repeat it, and so do codes that are computed on the fly.
    folder
        .ok("pretrain model genome.fa -o runs/b --preset base --config runs/a/config.toml --set data.codes=on-the-fly");
    assert!(folder.read("runs/a/model.safetensors") == folder.read("runs/b/model.safetensors"));
    assert!(folder.path("runs/a/codes/corpus.npy").exists() && !folder.path("runs/b/codes").exists());

    // It holds its vocabulary: the same codes under the same name.
    fs::rename(folder.path("runs/a"), folder.path("moved")).expect("moved");
    let codes = tokenize(&folder, "codes.tsv", "");
    folder.ok("tokenize moved genome.fa -o again.tsv");
    assert!(folder.read("again.tsv") == codes);
    folder.ok("decode moved codes.tsv -o decoded.fa");
    let shown = folder.ok("inspect moved");
    assert_eq!([shown.value("holds"), shown.value("layers"), shown.value("pool")], ["a pre-trained model", "2", "1"]);
    assert_eq!(shown.value("vocabulary"), folder.ok("inspect model").value("model"));
}

#[test]
fn pretraining_with_pools_spans_and_bf16() {
    let folder = hard_genome();
    let settings =
        "--set backbone.pool=4 --set masking.span=16 --precision bf16 --recompute --set backbone.checkpoint=true";
    folder.ok(&format!("pretrain model genome.fa -o run --steps 3 {settings} {BRIEFLY}"));
    let config: serde_json::Value = serde_json::from_slice(&folder.read("run/config.json")).expect("JSON");
    assert_eq!(config["backbone"]["pool"], 4);
    assert!(folder.text("run/config.toml").contains("precision = \"bf16\""));
    assert_eq!(folder.ok("inspect run").value("pool"), "4");
}

/// Genomes that hardly hold a window: a base, two, none but N, and records of nothing.
#[test]
fn pretraining_on_crumbs() {
    let folder = Folder::with_vocabulary();
    folder.write("crumbs.fa", ">a\nA\n>b\nCG\n>c\nNNNN\n>d\n\n>e\nACGTA\n");
    for settings in ["", "--set backbone.pool=4", "--set data.codes=on-the-fly --set data.strand=both"] {
        let run = settings.len();
        folder.ok(&format!("pretrain model crumbs.fa -o run{run} --steps 3 {BRIEFLY} {settings}"));
    }
}

#[test]
fn every_quantizer_goes_the_whole_way() {
    let folder = Folder::new();
    folder.write("genome.fa", small_genome());
    for (quantizer, levels) in [("vq", 1), ("rq", 2), ("fsq", 1)] {
        folder.ok(&format!("learn genome.fa -o {quantizer} --quantizer {quantizer} --steps 2 {BRIEFLY}"));
        let codes = folder.ok(&format!("tokenize {quantizer} genome.fa -o - --chunk 100"));
        assert_eq!(codes.text().lines().nth(2).expect("a base").split('\t').count(), 4 + levels);
        folder.ok(&format!("pretrain {quantizer} genome.fa -o on-{quantizer} --steps 2 {BRIEFLY}"));
        let decoded = folder.run_on(&format!("decode {quantizer} - -o -"), &codes.stdout);
        assert_eq!(lengths(decoded.text()), [("chr1", 2000), ("chr2", 1000)], "{}", decoded.stderr);
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on_to_the_same_weights() {
    let folder = Folder::with_vocabulary();
    folder.write("genome.fa", small_genome());
    for (stage, steps) in [("learn genome.fa", 60), ("pretrain model genome.fa", 60)] {
        let run = |name: &str| format!("{stage} -o {name} --steps {steps} {BRIEFLY}");
        folder.ok(&run("whole"));

        let child = folder.command(&run("cut")).spawn().expect("started");
        let log = folder.path("cut/metrics.jsonl");
        let patience = Instant::now() + Duration::from_mins(1);
        while fs::read_to_string(&log).unwrap_or_default().lines().count() < 3 {
            assert!(Instant::now() < patience, "no step is done");
            std::thread::sleep(Duration::from_millis(5));
        }
        let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        let outcome = finish(child);
        assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("stopped after") && outcome.stderr.contains("--resume"), "{}", outcome.stderr);
        assert!(outcome.stdout.is_empty(), "nothing is measured");
        assert!(folder.path("cut/checkpoint/state.json").exists() && !folder.path("cut/model.safetensors").exists());
        let unfinished = folder.run("tokenize cut genome.fa -o codes.tsv");
        assert_eq!(unfinished.code, Some(2));
        assert!(unfinished.stderr.contains("--resume"), "{}", unfinished.stderr);

        let resumed = folder.ok(&format!("{} --resume", run("cut")));
        assert_eq!(resumed.stderr.contains("are used again"), stage.starts_with("pretrain"), "{}", resumed.stderr);
        assert!(folder.read("cut/model.safetensors") == folder.read("whole/model.safetensors"));
        let log = folder.text("cut/metrics.jsonl");
        let entries = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        let logged: Vec<u64> =
            entries.filter(|entry| entry["split"] == "train").filter_map(|entry| entry["step"].as_u64()).collect();
        assert_eq!(logged, (1..=steps).collect::<Vec<_>>(), "each step once");
        for run in ["whole", "cut"] {
            fs::remove_dir_all(folder.path(run)).expect("removed");
        }
    }
}
