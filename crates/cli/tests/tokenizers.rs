//! Models over fixed tokenizers, through every command: pre-trained, fine-tuned, used, and their tokens in tables.

use std::fs;

use crate::program::{BRIEFLY, Folder, bases, record};

/// Names that `--tokenizer` knows, with settings; `{}` is a folder of `learn --tokenizer bpe`.
const TOKENIZERS: [(&str, &str); 5] = [
    ("character", ""),
    ("kmer", "--set tokenizer.k=4"),
    ("blocks", "--set tokenizer.k=3 --set tokenizer.layout=v1"),
    ("bpe", ""),
    ("bpe:bpe/tokenizer.json", ""),
];

/// Two contigs with soft-masked bases and N.
fn genome() -> String {
    let one = bases(1, 700);
    let one = format!("{}nnN{}{}", &one[..150], one[150..200].to_lowercase(), &one[200..]);
    record("one", &one) + &record("two", &bases(2, 200))
}

/// A folder with a genome and a byte-pair encoding.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("genome.fa", genome());
    let outcome = folder.ok("learn genome.fa -o bpe --tokenizer bpe --ids 40");
    assert_eq!([outcome.value("tokenizer"), outcome.value("ids")], ["bpe", "40"]);
    folder
}

/// Rows of a table, without notes and names of columns.
fn rows(folder: &Folder, name: &str) -> Vec<String> {
    let text = folder.text(name);
    text.lines().filter(|line| !line.starts_with('#')).skip(1).map(str::to_owned).collect()
}

fn start(row: &str) -> usize {
    row.split('\t').nth(1).expect("a start").parse().expect("a number")
}

#[test]
fn fixed_tokenizers_go_the_whole_way() {
    let folder = folder();
    let rows = (0..40).map(|n| format!("{},{}\n", bases(n, 30 + n as usize % 9), n % 2)).collect::<Vec<_>>().concat();
    folder.write("rows.csv", format!("sequence,label\n{rows}"));
    let pairs =
        (0..40).map(|n| format!("{},{},{}\n", bases(n, 30), bases(n + 50, 20), n % 2)).collect::<Vec<_>>().concat();
    folder.write("pairs.csv", format!("first,second,label\n{pairs}"));
    for (name, settings) in TOKENIZERS {
        let _ = ["run", "full", "probe", "pairs"].map(|made| fs::remove_dir_all(folder.path(made)));
        let outcome =
            folder.ok(&format!("pretrain --tokenizer {name} genome.fa -o run --steps 3 {BRIEFLY} {settings}"));
        assert!(outcome.text().contains("masked_bases"), "{name}: {}", outcome.text());
        let shown = folder.ok("inspect run");
        let kind = name.split(':').next().expect("a name");
        assert_eq!([shown.value("tokenizer"), shown.value("holds")], [kind, "a pre-trained model"]);
        let file: serde_json::Value = serde_json::from_slice(&folder.read("run/tokenizer.json")).expect("JSON");
        let known = file["model"]["vocab"].as_object().map_or(0, serde_json::Map::len);
        assert_eq!(known.to_string(), shown.value("ids"), "{name}");

        folder.ok("embed run rows.csv -o v.tsv");
        assert_eq!(self::rows(&folder, "v.tsv").len(), 40);
        folder.ok("embed run rows.csv -o each.tsv --pool none");
        assert!(self::rows(&folder, "each.tsv").len() >= 200, "{name}");
        folder.ok("finetune run rows.csv -o full --mode full --steps 2 --set train.batch=4");
        folder.ok("finetune run rows.csv -o probe --mode probe --steps 2 --set train.batch=4");
        folder.ok("finetune run pairs.csv -o pairs --sequence first --sequence second --steps 2 --set train.batch=4");
        for model in ["full", "probe"] {
            let predicted = folder.ok(&format!("predict {model} genome.fa"));
            assert_eq!(predicted.text().lines().count(), 3, "{name}");
            folder.ok(&format!("evaluate {model} rows.csv"));
        }
        folder.ok("evaluate pairs pairs.csv");
        // Whatever moves with the folder is all that it needs.
        fs::rename(folder.path("run"), folder.path("moved")).expect("moved");
        let _ = fs::remove_dir_all(folder.path("bpe-aside"));
        folder.ok("embed moved rows.csv -o moved.tsv");
        assert_eq!(self::rows(&folder, "moved.tsv"), self::rows(&folder, "v.tsv"), "{name}");
        fs::remove_dir_all(folder.path("moved")).expect("removed");
    }
}

#[test]
fn tokens_are_those_of_the_whole_record() {
    let folder = folder();
    for (name, settings) in TOKENIZERS {
        let _ = fs::remove_dir_all(folder.path("run"));
        folder.ok(&format!("pretrain --tokenizer {name} genome.fa -o run --steps 1 {BRIEFLY} {settings}"));
        folder.ok("tokenize run genome.fa -o whole.tsv");
        let whole = rows(&folder, "whole.tsv");
        assert!(whole.len() > 200 && whole[0].starts_with("one\t0\t"), "{name}: {}", whole[0]);

        folder.ok("tokenize run genome.fa -o region.tsv --region one:101-420");
        let own: Vec<String> =
            whole.iter().filter(|row| row.starts_with("one\t") && (100..420).contains(&start(row))).cloned().collect();
        assert_eq!(rows(&folder, "region.tsv"), own, "{name}: tokens that start in the region");

        let mut shares = Vec::new();
        for shard in 1..=3 {
            folder.ok(&format!("tokenize run genome.fa -o shard.tsv --shard {shard}/3"));
            shares.extend(rows(&folder, "shard.tsv"));
        }
        assert_eq!(shares, whole, "{name}: shards one after another");

        folder.ok("tokenize run genome.fa -o both.tsv --strand both");
        let both = rows(&folder, "both.tsv");
        let forward: Vec<String> = both.iter().filter(|row| row.contains("\t+\t")).cloned().collect();
        assert_eq!(forward, whole, "{name}");
        assert!(both.len() > whole.len() && both.iter().any(|row| row.contains("\t-\t")), "{name}");
        folder.ok("tokenize run genome.fa -o tokens.parquet");
        folder.ok("tokenize run genome.fa -o tokens.jsonl.gz --ambiguous split");
    }
}

#[test]
fn what_does_not_fit_a_fixed_tokenizer_is_refused() {
    let folder = folder();
    folder.ok(&format!("pretrain --tokenizer kmer genome.fa -o run --steps 1 {BRIEFLY}"));
    folder.write("broken.json", "{\"model\": {\"type\": \"Unigram\"}}");
    for (line, parts) in [
        ("pretrain --tokenizer kmers genome.fa -o new", &["--tokenizer kmers", "kmer", "character"][..]),
        ("pretrain --tokenizer kmer genome.fa -o new --set tokenizer.k=9", &["`k` is 9", "3 and 8"]),
        ("pretrain --tokenizer kmer genome.fa -o new --set tokenizer.kk=6", &["tokenizer", "kk"]),
        ("pretrain --tokenizer bpe:nowhere.json genome.fa -o new", &["nowhere.json"]),
        ("pretrain --tokenizer bpe:broken.json genome.fa -o new", &["broken.json", "model"]),
        ("pretrain --tokenizer kmer genome.fa -o new --set data.codes=cached", &["data.codes"]),
        ("tokenize run genome.fa -o t.npy", &["t.npy"]),
        ("tokenize run genome.fa -o t.tsv --chunk 9", &["--chunk"]),
        ("decode run t.tsv -o x.fa", &["run", "no vocabulary"]),
        ("units run genome.fa", &["run", "MxDNA"]),
        ("learn genome.fa -o new --ids 9", &["--ids", "bpe"]),
        ("learn genome.fa -o new --tokenizer bpe --ids 3", &["size", "3"]),
        ("learn genome.fa -o bpe --tokenizer bpe", &["bpe", "already holds"]),
        ("learn genome.fa -o new --tokenizer bpe --steps 5", &["--ids"]),
    ] {
        let outcome = folder.run(line);
        assert_eq!(outcome.code, Some(2), "{line}: {}", outcome.stderr);
        assert!(parts.iter().all(|part| outcome.stderr.contains(part)), "{line}: {}", outcome.stderr);
        assert!(!folder.path("new").exists() && !folder.path("t.tsv").exists(), "{line}");
    }
    // The vocabulary of a folder is the one that it was made with.
    folder.ok(&format!("pretrain --tokenizer bpe genome.fa -o model --steps 1 {BRIEFLY}"));
    folder.ok("learn genome.fa -o other --tokenizer bpe --ids 30");
    folder.write("model/tokenizer.json", folder.read("other/tokenizer.json"));
    let outcome = folder.run("embed model genome.fa -o v.tsv");
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("model/tokenizer.json") && outcome.stderr.contains("digest"), "{}", outcome.stderr);
}
