//! What cannot be done is said in one line that names the place, and leaves nothing behind.

use std::collections::BTreeSet;
use std::fs;

use crate::program::{BRIEFLY, Folder, small_genome};

/// A vocabulary, a genome and its codes.
fn folder() -> Folder {
    let folder = Folder::with_vocabulary();
    folder.write("genome.fa", small_genome());
    folder.ok("tokenize model genome.fa -o codes.tsv");
    folder
}

/// Runs a line that must fail with one line that has all these parts, and leave the folder as it was.
#[track_caller]
pub fn assert_refused(folder: &Folder, line: &str, parts: &[&str]) {
    let before = folder.names();
    let outcome = folder.run(line);
    let said = &outcome.stderr;
    assert_eq!(outcome.code, Some(2), "{line}: {said}");
    assert!(outcome.stdout.is_empty(), "{line}: nothing is printed");
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    let [error] = errors[..] else { panic!("{line}: not one error: {said}") };
    assert!(!said.contains("panicked"), "{line}: {said}");
    for part in parts {
        assert!(error.contains(part), "{line}: no {part} in: {error}");
    }
    // A mistake in the arguments is followed by a hint at the help.
    let is_usage = said.contains("try '--help'");
    assert!(is_usage || said.trim_end().ends_with(error), "{line}: something follows: {said}");
    // An index is kept for the next time.
    let is_index = |name: &String| [".fai", ".gzi"].iter().any(|ending| name.ends_with(ending));
    let left: BTreeSet<String> = folder.names().difference(&before).filter(|name| !is_index(name)).cloned().collect();
    assert!(left.is_empty(), "{line} leaves {left:?}");
    assert!(before.is_subset(&folder.names()), "{line} removes something");
}

#[test]
fn inputs() {
    let folder = folder();
    let gz = {
        use std::io::Write;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(small_genome().as_bytes()).expect("written");
        gz.finish().expect("written")
    };
    folder.write("folder/genome.fa", "");
    for (name, bytes) in [
        ("empty.fa", &b""[..]),
        ("blank.fa", b"\n\n"),
        ("cut.fa.gz", &gz[..gz.len() / 2]),
        ("cut_in_header.fa.gz", &gz[..5]),
        ("damaged.fa.gz", &[&gz[..40], &[0xff; 40], &gz[80..]].concat()),
        ("binary.fa", b"\x7fELF\x02\x01\x01\x00\x00>a\nACGT\n"),
        ("reads.bam", b"BAM\x01\x00\x00\x00\x00"),
        ("table.csv", b"sequence,label\nACGT,1\n"),
        ("bare.txt", b"ACGTACGT\n"),
        ("zeros.fa", b">a\nAC\0\0GT\n"),
        ("protein.fa", b">p53 human\nMEEPQSDPSV\n"),
        ("mixed.fa", b">dna\nACGT\n>p53\nACGEEP\n"),
        ("aligned.fa", b">a\nAC--GT\n"),
        ("nameless.fa", b">\nACGT\n"),
        ("twice.fa", b">a\nACGT\n>b\nA\n>a\nACGT\n"),
        ("qualities.fq", b"@r1\nACGT\n+\nIIII\n@r2\nACGT\n+\nII\n"),
        ("control.fq", b"@r1\nACGT\n+\nII\x07I\n"),
        ("cut.fq", b"@r1\nACGT\n+\nIIII\n@r2\nACG"),
    ] {
        folder.write(name, bytes);
    }
    for (input, parts) in [
        ("missing.fa", &["missing.fa", "no such file"][..]),
        ("folder", &["folder", "is a folder"]),
        ("empty.fa", &["empty.fa", "is empty"]),
        ("blank.fa", &["blank.fa", "is empty"]),
        ("cut.fa.gz", &["cut.fa.gz", "gzip", "cut off"]),
        ("cut_in_header.fa.gz", &["cut_in_header.fa.gz", "cut off"]),
        ("damaged.fa.gz", &["damaged.fa.gz", "gzip"]),
        ("binary.fa", &["binary.fa", "line 1", "neither FASTA nor FASTQ"]),
        ("reads.bam", &["reads.bam", "neither FASTA nor FASTQ"]),
        ("table.csv", &["table.csv", "line 1", "`s`"]),
        ("bare.txt", &["bare.txt", "line 1", "`A`"]),
        ("zeros.fa", &["zeros.fa", "`a`", "base 3", "`\\x00`"]),
        ("protein.fa", &["protein.fa", "`p53`", "base 2", "`E`", "protein"]),
        ("mixed.fa", &["mixed.fa", "`p53`", "base 4", "`E`"]),
        ("aligned.fa", &["aligned.fa", "`a`", "base 3", "gap"]),
        ("nameless.fa", &["nameless.fa", "line 1", "no name"]),
        ("twice.fa", &["twice.fa", "line 5", "`a`", "line 1"]),
        ("qualities.fq", &["qualities.fq", "line 5", "`r2`", "4 bases but 2 qualities"]),
        ("control.fq", &["control.fq", "`r1`", "\\x07"]),
        ("cut.fq", &["cut.fq", "`r2`", "cut off"]),
    ] {
        assert_refused(&folder, &format!("tokenize model {input} -o new.parquet"), parts);
        assert_refused(&folder, &format!("tokenize model genome.fa {input} -o new.npy"), parts);
        // Records of equal names can be learned from: nothing is filed under them.
        if input != "twice.fa" {
            assert_refused(&folder, &format!("learn {input} -o new --preset tiny"), parts);
            assert_refused(&folder, &format!("pretrain model {input} -o new --preset tiny"), parts);
        }
        assert_refused(&folder, &format!("decode model codes.tsv -o new.fa --original {input}"), parts);
        assert_refused(&folder, &format!("tokenize model {input} -o new.tsv --shard 1/2"), parts);
    }
    let twice = ["genome.fa, line 1", "`chr1`", "earlier record"];
    assert_refused(&folder, "tokenize model genome.fa genome.fa -o new.tsv", &twice);
    folder.write("ambiguous.fa", ">a\nACGTRACGT\n");
    let ambiguous = ["ambiguous.fa", "`a`", "base 5", "`R`", "ambiguous"];
    assert_refused(&folder, "tokenize model ambiguous.fa -o new.tsv --ambiguous error", &ambiguous);
    assert_refused(&folder, "learn ambiguous.fa -o new --set data.letters.ambiguous=error", &ambiguous);
}

#[test]
fn outputs() {
    let folder = folder();
    fs::create_dir(folder.path("taken.tsv")).expect("made");
    for (output, parts) in [
        ("genome.fa/new.tsv", &["genome.fa/new.tsv"][..]),
        ("nowhere/new.parquet", &["nowhere/new.parquet"]),
        ("nowhere/new.npy", &["nowhere/new.npy"]),
        ("taken.tsv", &["taken.tsv"]),
        ("new.csv", &["new.csv", ".parquet, .npy or .tsv"]),
        ("new", &["new", ".parquet, .npy or .tsv"]),
        ("new.tsv.gz", &["new.tsv.gz", ".parquet, .npy or .tsv"]),
    ] {
        assert_refused(&folder, &format!("tokenize model genome.fa -o {output}"), parts);
        assert_refused(&folder, &format!("merge codes.tsv -o {output}"), parts);
    }
    for output in ["genome.fa/new.fa", "nowhere/new.fa", "model"] {
        assert_refused(&folder, &format!("decode model codes.tsv -o {output}"), &[output]);
    }
    for output in ["genome.fa", "genome.fa/new"] {
        assert_refused(&folder, &format!("learn genome.fa -o {output} --preset tiny"), &[output]);
        assert_refused(&folder, &format!("pretrain model genome.fa -o {output} --preset tiny"), &[output]);
    }
    // What was there before stays as it was.
    folder.write("protein.fa", ">p\nMEEP\n");
    let before = folder.read("codes.tsv");
    assert_refused(&folder, "tokenize model genome.fa protein.fa -o codes.tsv", &["protein.fa"]);
    assert!(folder.read("codes.tsv") == before);
}

#[test]
fn settings() {
    let folder = folder();
    folder.write("broken.toml", "seed = 1\n[train\nsteps = 3\n");
    folder.write("unknown.toml", "[train]\nstepz = 3\n");
    for (options, parts) in [
        ("--config missing.toml", &["missing.toml"][..]),
        ("--config broken.toml", &["broken.toml", "line 2"]),
        ("--config unknown.toml", &["unknown.toml: ", "train.stepz", "unknown field"]),
        ("--set train.stepz=3", &["--set train.stepz=3: ", "train.stepz", "`steps`"]),
        ("--set train.steps", &["`--set train.steps`", "field=value"]),
        ("--set train.steps=many", &["train.steps", "many"]),
        ("--set data.split.kind=chromosome", &["data.split", "chromosome"]),
        ("--steps 0", &["--steps 0: ", "train.steps", "at least 1"]),
        ("--set tokenizer.taps=[6]", &["tokenizer.taps"]),
        ("--set tokenizer.quantizer.codebook_sizes=[64]", &["tokenizer.taps"]),
        ("--set tokenizer.kernel=4", &["tokenizer.kernel"]),
        ("--set data.stride=64", &["data.stride", "data.split.kind"]),
        ("--set train.schedule.rate=-1", &["train.schedule.rate"]),
        ("--set data.split.valid=1.5", &["split.valid", "1.5"]),
        ("--set data.split.kind=contig --set data.split.valid=[\"chr\"]", &["`chr`", "did you mean `chr1`?"]),
        ("--set data.split.kind=contig --set data.split.valid=[\"chr1\",\"chr2\"]", &["no window to train on"]),
        ("--preset huge", &["huge", "--preset"]),
        ("--quantizer pq", &["pq", "--quantizer"]),
        ("--device gpu", &["`gpu`", "cpu"]),
        ("--threads 0", &["--threads"]),
    ] {
        assert_refused(&folder, &format!("learn genome.fa -o new {options}"), parts);
    }
}

#[test]
fn settings_of_pretraining() {
    let folder = folder();
    folder.write("stage1.toml", "[tokenizer]\nkernel = 7\n");
    for (options, parts) in [
        ("--config stage1.toml", &["stage1.toml", "`tokenizer`", "that of the vocabulary"][..]),
        ("--set masking.spam=3", &["masking.spam", "`span`"]),
        ("--set masking.share=1", &["masking.share", "below 1"]),
        ("--set masking.span=600", &["masking.span", "data.length"]),
        ("--set backbone.heads=5", &["backbone.heads", "backbone.d_model"]),
        ("--set backbone.pool=0", &["backbone.pool"]),
        ("--set data.codes=never", &["data.codes", "never"]),
        ("--set data.soft_masked_weight=0.5", &["data.soft_masked_weight"]),
        ("--set train.schedule.decay=never", &["train.schedule.decay", "never", "cosine"]),
        ("--set train.schedule.warmup_steps=9000", &["train.schedule.warmup_steps", "train.steps"]),
        ("--set data.split.kind=contig --set data.split.valid=[\"chr1\",\"chr2\"]", &["no window to train on"]),
        ("--quantizer vq", &["--quantizer"]),
        ("--preset huge", &["huge", "--preset"]),
        ("--device gpu", &["`gpu`", "cpu"]),
    ] {
        assert_refused(&folder, &format!("pretrain model genome.fa -o new {options}"), parts);
    }
}

#[test]
fn options_of_tokenize() {
    let folder = folder();
    for (options, parts) in [
        ("genome.fa --shard 0/3", &["0/3"][..]),
        ("genome.fa --shard 4/3", &["4/3"]),
        ("genome.fa --shard half", &["half"]),
        ("- --shard 1/3", &["--shard", "standard input"]),
        ("genome.fa --region chr9:1-10", &["genome.fa", "`chr9`", "did you mean `chr"]),
        ("genome.fa --region 2", &["genome.fa", "`2`", "did you mean `chr2`?"]),
        ("genome.fa --region chr2:0-10", &["`chr2:0-10`", "counted from 1"]),
        ("genome.fa --region chr2:20-10", &["`chr2:20-10`"]),
        ("genome.fa --region chr2:1,001-1,010", &["`chr2:1001-1010`", "1000 bases"]),
        ("genome.fa --region chr2:a-b", &["`a-b`"]),
        ("genome.fa --region chr2:1-10 --shard 1/2", &["--region", "--shard"]),
        ("genome.fa genome.fa --region chr2:1-10", &["--region", "one FASTA file"]),
        ("genome.fa --chunk 0", &["--chunk"]),
        ("genome.fa --batch 0", &["--batch"]),
        ("genome.fa --ambiguous maybe", &["maybe", "--ambiguous"]),
        ("genome.fa --device gpu", &["`gpu`", "cpu"]),
        ("genome.fa --threads many", &["many", "--threads"]),
    ] {
        assert_refused(&folder, &format!("tokenize model -o new.tsv {options}"), parts);
    }
}

/// A copy of the vocabulary with a changed file; none removes it.
fn spoil(folder: &Folder, copy: &str, file: &str, change: impl Fn(Vec<u8>) -> Option<Vec<u8>>) {
    for name in ["config.json", "model.safetensors"] {
        let bytes = folder.read(&format!("model/{name}"));
        if let Some(bytes) = if name == file { change(bytes) } else { Some(bytes) } {
            folder.write(&format!("{copy}/{name}"), bytes);
        }
    }
}

#[test]
fn models() {
    let folder = folder();
    let config = |copy: &str, old: &str, new: &str| {
        spoil(&folder, copy, "config.json", |text| {
            let compact: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            let text = compact.to_string();
            assert!(text.contains(old), "{text}");
            Some(text.replace(old, new).into_bytes())
        });
    };
    config("unknown", "\"format_version\"", "\"surprise\":1,\"format_version\"");
    config("unknown_within", "\"kernel\"", "\"colour\":1,\"kernel\"");
    config("newer", "\"format_version\":4", "\"format_version\":5,\"surprise\":1");
    config("version_0", "\"format_version\":4", "\"format_version\":0");
    config("enormous", "\"d_code\":64", "\"d_code\":65536");
    config("unversioned", "\"format_version\":4,", "");
    config("foreign", "\"model_type\":\"vqdna\"", "\"model_type\":\"bert\"");
    config("wider", "[64,128]", "[64,256]");
    config("even", "\"kernel\":7", "\"kernel\":4");
    config("tapless", "[3,6]", "[6]");
    spoil(&folder, "unconfigured", "config.json", |_| None);
    spoil(&folder, "garbled", "config.json", |_| Some(b"{\"model_type\": ".to_vec()));
    spoil(&folder, "weightless", "model.safetensors", |_| None);
    spoil(&folder, "cut", "model.safetensors", |bytes| Some(bytes[..bytes.len() / 2].to_vec()));
    spoil(&folder, "hollow", "model.safetensors", |_| Some(Vec::new()));
    spoil(&folder, "random", "model.safetensors", |bytes| Some(vec![0xa5; bytes.len()]));
    for (model, parts) in [
        ("unknown", &["unknown/config.json", "surprise"][..]),
        ("unknown_within", &["unknown_within/config.json", "colour"]),
        ("newer", &["newer/config.json", "`format_version` is 5", "up to 4"]),
        ("version_0", &["version_0/config.json", "`format_version` is 0"]),
        ("enormous", &["enormous/config.json", "numbers", "enormous/model.safetensors"]),
        ("unversioned", &["unversioned/config.json", "format_version"]),
        ("foreign", &["foreign/config.json", "model_type"]),
        ("wider", &["wider/model.safetensors", "codebooks.1.", "[128", "[256"]),
        ("even", &["even/config.json", "kernel"]),
        ("tapless", &["tapless/config.json", "taps"]),
        ("unconfigured", &["unconfigured", "config.json"]),
        ("garbled", &["garbled/config.json", "JSON"]),
        ("weightless", &["weightless", "model.safetensors"]),
        ("cut", &["cut/model.safetensors"]),
        ("hollow", &["hollow/model.safetensors"]),
        ("random", &["random/model.safetensors"]),
        ("nowhere", &["nowhere"]),
        ("genome.fa", &["genome.fa"]),
    ] {
        assert_refused(&folder, &format!("tokenize {model} genome.fa -o new.tsv"), parts);
        assert_refused(&folder, &format!("decode {model} codes.tsv -o new.fa"), parts);
        assert_refused(&folder, &format!("inspect {model}"), parts);
        assert_refused(&folder, &format!("pretrain {model} genome.fa -o new --preset tiny"), parts);
    }
    folder.ok(&format!("pretrain model genome.fa -o pretrained --steps 2 {BRIEFLY}"));
    let parts = ["pretrained holds a pre-trained model", "a vocabulary is needed", "`vqdna learn`"];
    assert_refused(&folder, "pretrain pretrained genome.fa -o new --preset tiny", &parts);
}

#[test]
fn codes() {
    let folder = folder();
    folder.ok("tokenize model genome.fa -o codes.parquet");
    folder.ok("tokenize model genome.fa -o codes.npy");
    spoil(&folder, "other", "model.safetensors", |mut bytes| {
        *bytes.last_mut().expect("weights") ^= 1;
        Some(bytes)
    });
    for codes in ["codes.parquet", "codes.npy", "codes.tsv"] {
        let parts = [codes, "another vocabulary", "digest"];
        assert_refused(&folder, &format!("decode other {codes} -o new.fa"), &parts);
        let bytes = folder.read(codes);
        let cut = format!("cut.{codes}");
        folder.write(&cut, &bytes[..bytes.len() / 2]);
        if codes == "codes.npy" {
            folder.write(&format!("{cut}.records.tsv"), folder.read("codes.npy.records.tsv"));
        }
        assert_refused(&folder, &format!("decode model {cut} -o new.fa"), &[&cut]);
        assert_refused(&folder, &format!("merge {codes} {cut} -o new.tsv"), &[&cut]);
        folder.write(&format!("hollow.{codes}"), "");
        assert_refused(&folder, &format!("decode model hollow.{codes} -o new.fa"), &[&format!("hollow.{codes}")]);
    }
    folder.write("alone.npy", folder.read("codes.npy"));
    assert_refused(&folder, "decode model alone.npy -o new.fa", &["alone.npy.records.tsv"]);
    assert_refused(&folder, "decode model missing.tsv -o new.fa", &["missing.tsv"]);
    assert_refused(&folder, "decode model genome.fa -o new.fa", &["genome.fa", ".parquet, .npy or .tsv"]);
    folder.write("table.tsv", "a\tb\n1\t2\n");
    assert_refused(&folder, "decode model table.tsv -o new.fa", &["table.tsv"]);
    let text = folder.text("codes.tsv");
    folder.write("high.tsv", text.trim_end().rsplit_once('\t').expect("a code").0.to_owned() + "\t128\n");
    assert_refused(&folder, "decode model high.tsv -o new.fa", &["high.tsv", "128"]);
    folder.write("foreign.fa", ">elsewhere\nACGT\n");
    assert_refused(&folder, "decode model codes.tsv -o new.fa --original foreign.fa", &["`chr1`"]);

    // The library panics about the length of a column.
    folder.write("panic.parquet", include_bytes!("../../../fuzz/corpus/codes_parquet/negative_length"));
    assert_refused(&folder, "merge panic.parquet -o new.tsv", &["panic.parquet", "damaged"]);
    assert_refused(&folder, "merge codes.tsv codes.tsv -o new.tsv", &["codes.tsv", "chr1"]);
    folder.ok("tokenize other genome.fa -o other.tsv");
    assert_refused(&folder, "merge codes.tsv other.tsv -o new.tsv", &["other.tsv", "codes.tsv"]);
    folder.ok("tokenize model genome.fa -o bf16.tsv --precision bf16");
    assert_refused(&folder, "merge codes.tsv bf16.tsv -o new.tsv", &["bf16.tsv", "codes.tsv"]);
}

#[test]
fn runs_that_exist() {
    let folder = folder();
    assert_refused(&folder, "learn genome.fa -o model --preset tiny", &["model", "already holds", "--resume"]);

    let learn = format!("learn genome.fa -o run {BRIEFLY}");
    folder.ok(&format!("{learn} --steps 2"));
    let files =
        ["config.toml", "config.json", "metrics.jsonl", "model.safetensors", "run.json", "checkpoint/state.json"];
    let read = || files.map(|name| folder.read(&format!("run/{name}")));
    let before = read();
    let parts = ["run/checkpoint", "other settings"];
    assert_refused(&folder, &format!("{learn} --steps 3 --resume"), &["`train.steps` is 2 there and 3 here"]);
    assert_refused(&folder, &format!("{learn} --steps 3 --resume"), &parts);
    assert_refused(&folder, &format!("{learn} --steps 2 --seed 5 --resume"), &parts);
    folder.write("other.fa", small_genome().replace("chr2", "chr3"));
    assert_refused(&folder, &format!("{learn} --steps 2 --resume").replace("genome.fa", "other.fa"), &parts);
    assert!(read() == before, "a refused run changes nothing");

    let pretrain = format!("pretrain model genome.fa -o second {BRIEFLY}");
    folder.ok(&format!("{pretrain} --steps 2"));
    assert_refused(&folder, &format!("{pretrain} --steps 2"), &["second", "already holds", "--resume"]);
    let before_second = folder.read("second/codes/provenance.json");
    for other in ["--steps 3", "--steps 2 --set data.letters.ambiguous=split", "--steps 2 --set masking.span=2"] {
        assert_refused(&folder, &format!("{pretrain} {other} --resume"), &["second/checkpoint", "other settings"]);
    }
    assert!(folder.read("second/codes/provenance.json") == before_second, "a refused run leaves codes as they are");
    folder.ok(&format!("{pretrain} --steps 2 --resume"));

    // Without the finished model, the checkpoint still takes the folder.
    fs::remove_file(folder.path("run/model.safetensors")).expect("removed");
    assert_refused(&folder, &format!("{learn} --steps 2"), &["run", "checkpoint", "--resume"]);
    folder.write("run/checkpoint/optimizer.safetensors", "half");
    assert_refused(&folder, &format!("{learn} --steps 2 --resume"), &["run/checkpoint", "optimizer.safetensors"]);
}

#[test]
fn a_loss_that_is_no_number() {
    let folder = folder();
    let outcome = folder.run(&format!("learn genome.fa -o run --steps 20 --set train.schedule.rate=1e30 {BRIEFLY}"));
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    let error = outcome.stderr.lines().last().unwrap_or_default();
    for part in ["error: ", "not finite at step ", "learning rate ", "e29", "train.schedule.rate"] {
        assert!(error.contains(part), "{error}");
    }
    // The log shows how it came to that; nothing looks like a result.
    assert!(!folder.path("run/model.safetensors").exists() && !folder.path("run/config.json").exists());
    assert!(folder.names().iter().all(|name| !name.contains(".part")));
}

#[test]
fn values_of_the_environment() {
    let folder = Folder::with_vocabulary();
    for (line, value) in [("doctor", "AVX2"), ("doctor", "avx1024"), ("inspect model", "AVX2")] {
        let outcome = folder.command(line).env("VQDNA_SIMD", value).output().expect("the program runs");
        let said = String::from_utf8_lossy(&outcome.stderr);
        assert_eq!(outcome.status.code(), Some(2), "{line} at {value}: {said}");
        let wanted = format!("error: VQDNA_SIMD is `{value}`, but must be one of baseline, avx2, avx512");
        assert!(said.contains(&wanted) && !said.contains("panicked"), "{line} at {value}: {said}");
    }
    for value in ["often", "-1"] {
        let outcome =
            folder.command("inspect model").env("VQDNA_PROGRESS_EVERY", value).output().expect("the program runs");
        let said = String::from_utf8_lossy(&outcome.stderr);
        assert_eq!(outcome.status.code(), Some(2), "{value}: {said}");
        let wanted = format!("error: VQDNA_PROGRESS_EVERY is `{value}`, but must be a number of seconds");
        assert!(said.starts_with(&wanted), "{value}: {said}");
    }
    let outcome = folder.command("doctor").env("VQDNA_SIMD", "baseline").output().expect("the program runs");
    assert!(String::from_utf8_lossy(&outcome.stdout).contains("simd\tbaseline"), "a level that every processor has");
}
