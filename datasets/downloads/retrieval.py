"""Downloads of the retrieval and text data sets; see :mod:`datasets.downloads.manifest` for where these facts are from."""

from __future__ import annotations

from datasets.downloads.entries import Download, Entry, Item

_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_KARPATHY = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
_NANO = ("ClimateFEVER", "DBPedia", "FEVER", "NFCorpus", "NQ", "SCIDOCS", "SciFact")
_REVISITED = "http://cmp.felk.cvut.cz/revisitop/data/datasets"
_MILLION = "http://ptak.felk.cvut.cz/revisitop/revisitop1m"

RETRIEVAL = (
    Entry(
        "SOP", "https://cvgl.stanford.edu/projects/lifted_struct", "research use",
        (Download("ftp://cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip", (Item("Stanford_Online_Products", files=120_055),),
                  3_083_860_082, "md5:7f73d41a2f44250d4779881525aea32e"),),
        ("Where FTP is blocked: http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip.",),
    ),
    Entry(
        "ROxford5k", "http://cmp.felk.cvut.cz/revisitop", "see its page; images of Flickr",
        (
            Download(f"{_OXFORD}/oxbuildings/oxbuild_images-v1.tgz", (Item("roxford5k/jpg", "", 5063),), 1_938_238_004, by_hand=True),
            Download(f"{_REVISITED}/roxford5k/gnd_roxford5k.pkl", (Item("roxford5k/gnd_roxford5k.pkl"),), by_hand=True),
        ),
        ("No checksums are published.",),
    ),
    Entry(
        "RParis6k", "http://cmp.felk.cvut.cz/revisitop", "see its page; images of Flickr",
        (
            Download(f"{_OXFORD}/parisbuildings/", (Item("rparis6k/jpg", files=6392),), by_hand=True),
            Download(f"{_REVISITED}/rparis6k/gnd_rparis6k.pkl", (Item("rparis6k/gnd_rparis6k.pkl"),), by_hand=True),
        ),
        (
            "The images are in two archives, paris_1-v1.tgz and paris_2-v1.tgz of the same address, in folders that have to go:",
            "  mkdir -p {data}/rparis6k/jpg",
            "  for archive in paris_1-v1.tgz paris_2-v1.tgz; do tar -xzf $archive --strip-components=2 -C {data}/rparis6k/jpg; done",
            "No checksums are published.",
        ),
    ),
    Entry(
        "revisitop1m", "http://cmp.felk.cvut.cz/revisitop", "see its page; images of Flickr",
        (Download(_MILLION, (Item("revisitop1m/revisitop1m.txt"), Item("revisitop1m/jpg", files=1_000_000)), by_hand=True),),
        (
            "The million distractors of ROxford5k and RParis6k: a hundred archives and a list. No checksums are published.",
            "  mkdir -p {data}/revisitop1m/jpg",
            f"  curl -o {{data}}/revisitop1m/revisitop1m.txt {_MILLION}/revisitop1m.txt",
            f"  for n in $(seq 100); do curl {_MILLION}/jpg/revisitop1m.$n.tar.gz | tar -xzf - -C {{data}}/revisitop1m/jpg; done",
        ),
    ),
    Entry(
        "COCO", "https://cs.stanford.edu/people/karpathy/deepimagesent", "captions CC BY 4.0",
        (Download(_KARPATHY, (Item("COCO2014/dataset_coco.json", others=("COCO2014/dataset_coco_light.json",)),),
                  36_745_453, unpacked=144_186_139),),
        ("The captions with Karpathy's split. With images: http://images.cocodataset.org/zips/train2014.zip and val2014.zip, unpacked "
         "in {data}/COCO2014.",),
    ),
    Entry(
        "Flickr30k", "https://shannon.cs.illinois.edu/DenotationGraph", "non-commercial research; images of Flickr",
        (
            Download("https://www.kaggle.com/datasets/hsankesara/flickr-image-dataset", (Item("Flickr30K/results.csv"),),
                     name="results.csv", by_hand=True),
            Download("https://cs.stanford.edu/people/karpathy/deepimagesent/",
                     tuple(Item(f"Flickr30K/karpathy_{split}.txt") for split in ("train", "val", "test")), by_hand=True),
        ),
        (
            "results.csv is the table of captions in that archive. The lists of Karpathy's split have one file name in each line, and are "
            "made of the dataset_flickr30k.json in his caption_datasets.zip:",
            "  python -c \"import json; [print(i['filename'], file=open('{data}/Flickr30K/karpathy_' + i['split'] + '.txt', 'a'))"
            " for i in json.load(open('dataset_flickr30k.json'))['images']]\"",
        ),
    ),
    Entry(
        "nocaps", "https://nocaps.org/download", "see its page",
        (Download("https://nocaps.s3.amazonaws.com/nocaps_val_4500_captions.json",
                  (Item("nocaps/nocaps_val_4500_captions.json"),), 8_000_000),),
        ("The captions only; every image of the file has its address in it.",),
    ),
    Entry(
        "IMDB", "https://ai.stanford.edu/~amaas/data/sentiment", "see its page",
        (Download("https://www.kaggle.com/datasets/lakshmi25npathi/imdb-dataset-of-50k-movie-reviews",
                  (Item("IMDB_Reviews/IMDB_Dataset.csv", others=("IMDB_Reviews/IMDB Dataset.csv",)),),
                  name="IMDB_Dataset.csv", by_hand=True),),
        ("Kaggle asks for an account and calls the file 'IMDB Dataset.csv'.",),
    ),
    Entry(
        "20Newsgroups", "http://qwone.com/~jason/20Newsgroups", "see its page",
        (Download("https://ndownloader.figshare.com/files/5975967",
                  (Item("20Newsgroups/20news-bydate-train", files=11_314, others=("20news-bydate-train",)),
                   Item("20Newsgroups/20news-bydate-test", files=7532, others=("20news-bydate-test",))),
                  14_464_277, "sha256:8f1b2514ca22a5ade8fbb9cfa5727df95fa587f4c87b786e15c759fa66d95610",
                  name="20news-bydate.tar.gz", unpacked=40_000_000),),
    ),
    *(
        Entry(f"Nano{name}", f"https://huggingface.co/datasets/zeta-alpha-ai/Nano{name}", "CC BY 4.0",
              hub=f"zeta-alpha-ai/Nano{name}")
        for name in _NANO
    ),
)  # fmt: skip
