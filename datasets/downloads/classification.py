"""Downloads of the classification data sets; see :mod:`datasets.downloads.manifest` for where these facts are from."""

from __future__ import annotations

from datasets.downloads.entries import Download, Entry, Item

_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_COOP_PAGE = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
_IMO_PAGE = "https://github.com/akres001/CLIP_fewshot_imo"  # of the intra-modal overlap paper
# By the same authors: the split_alexey files, below assets/.
_SPLITS_PAGE = "https://github.com/akres001/Rethinking-Few-Shot-CLIP-Benchmarks-A-Critical-Analysis-in-the-Inductive-Setting"
_CARS_PAGE = "https://github.com/pytorch/vision/issues/7545"


def _file(url: str, path: str, size: int, checksum: str | None, *others: str) -> Download:
    """A file that is kept as it is."""
    return Download(url, (Item(path, checksum=checksum, others=others),), size, checksum, name=path.rpartition("/")[2])


def _folder(path: str, files: int, inner: str | None = None, *others: str) -> Item:
    return Item(path, inner, files, others=others)


def _coop(path: str, drive: str, only: str = "coop") -> Download:
    """A split file of CoOp, which Google Drive gives to browsers."""
    page = f"https://drive.google.com/file/d/{drive}/view"
    return Download(page, (Item(path),), name=path.rpartition("/")[2], by_hand=True, only=only)


def _imo(path: str) -> Download:
    return Download(_SPLITS_PAGE, (Item(path),), name=path.rpartition("/")[2], by_hand=True, only="coop")


def _idx(name: str, base: str, home: str, licence: str, files: dict[str, tuple[int, str]]) -> Entry:
    """The four files of an MNIST; they are read compressed."""
    raw = f"{name}/raw"
    downloads = [
        _file(f"{base}/{part}-ubyte.gz", f"{raw}/{part}-ubyte.gz", size, f"md5:{md5}", f"{raw}/{part}-ubyte")
        for part, (size, md5) in files.items()
    ]
    return Entry(name, home, licence, tuple(downloads))


def _cifar(name: str, archive: str, size: int, md5: str, folder: str, pickled: str, files: dict[str, tuple[int | None, str]]) -> Entry:
    """The binary version; the one made of pickles is accepted where it is there already."""
    items = tuple(
        Item(f"{folder}/{file}", f"{folder}/{file}", size=length, others=(f"{pickled}/{other}",))
        for file, (length, other) in files.items()
    )  # fmt: skip
    download = Download(f"https://www.cs.toronto.edu/~kriz/{archive}", items, size, f"md5:{md5}", unpacked=185_000_000)
    return Entry(name, "https://www.cs.toronto.edu/~kriz/cifar.html", "none stated; cite the report", (download,))


def _stl10(file: str, checksum: str | None) -> Item:
    return Item(f"stl10_binary/{file}", f"stl10_binary/{file}", checksum=checksum)


def _pcam(split: str, part: str, size: int, md5: str, unpacked: int) -> Download:
    file = f"camelyonpatch_level_2_split_{split}_{part}.h5"
    url = f"https://zenodo.org/records/2546921/files/{file}.gz?download=1"
    return Download(url, (Item(f"pcam/{file}"),), size, f"md5:{md5}", unpacked=unpacked)


def _resisc(split: str, sha256: str) -> Download:
    return _file(f"{_RESISC45}/resisc45-{split}.txt", f"resisc45/resisc45-{split}.txt", 500_000, f"sha256:{sha256}")


def _cars(name: str, size: int, md5: str, item: Item) -> Download:
    return Download(_CARS_PAGE, (item,), size, f"md5:{md5}", name=name, by_hand=True)


_RESISC45 = "https://huggingface.co/datasets/isaaccorley/resisc45/resolve/883edc0eee77b2c84225472f10f126e3ed83fa6e"
_GTSRB = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
_DOGS = "http://vision.stanford.edu/aditya86/ImageNetDogs"
_PLANTDOC = "5467f6012d78d1c446145d5f582da6096f852ae8"  # the commit of 2021-05-02, the last one

CLASSIFICATION = (
    _idx(
        "MNIST", "https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist", "CC BY-SA 3.0",
        {
            "train-images-idx3": (9_912_422, "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
            "train-labels-idx1": (28_881, "d53e105ee54ea40749a09fcbcd1e9432"),
            "t10k-images-idx3": (1_648_877, "9fb629c4189551a2d022fa330f9573f3"),
            "t10k-labels-idx1": (4_542, "ec29112dd5afa0611ce80d1b7f02629c"),
        },
    ),
    _idx(
        "FashionMNIST", "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
        "https://github.com/zalandoresearch/fashion-mnist", "MIT",
        {
            "train-images-idx3": (26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            "train-labels-idx1": (29_515, "25c81989df183df01b3e8a0aad5dffbe"),
            "t10k-images-idx3": (4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
            "t10k-labels-idx1": (5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
        },
    ),
    _idx(
        "KMNIST", "http://codh.rois.ac.jp/kmnist/dataset/kmnist", "http://codh.rois.ac.jp/kmnist", "CC BY-SA 4.0",
        {
            "train-images-idx3": (18_165_135, "bdb82020997e1d708af4cf47b453dcf7"),
            "train-labels-idx1": (29_497, "e144d726b3acfaa3e44228e80efcd344"),
            "t10k-images-idx3": (3_041_136, "5c965bf0a639b31b8f53240b1b52f4d7"),
            "t10k-labels-idx1": (5_120, "7320c461ea6c1c855c0b718fb2a4b134"),
        },
    ),
    Entry(
        "EMNISTLetters", "https://www.nist.gov/itl/products-and-services/emnist-dataset", "see its page",
        (
            Download(
                "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
                tuple(
                    Item(f"EMNIST/raw/{file}.gz", f"gzip/{file}.gz", others=(f"EMNIST/raw/{file}",))
                    for part in ("train", "test")
                    for file in (f"emnist-letters-{part}-images-idx3-ubyte", f"emnist-letters-{part}-labels-idx1-ubyte")
                ),
                561_753_746, "md5:58c8d27c78d21e728a6bc7b3cc06412e", unpacked=40_000_000,
            ),
        ),
    ),
    _cifar(
        "CIFAR10", "cifar-10-binary.tar.gz", 170_052_171, "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin", "cifar-10-batches-py",
        {
            **{f"{batch}.bin": (30_730_000, batch) for batch in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")},
            "batches.meta.txt": (None, "batches.meta"),
        },
    ),
    _cifar(
        "CIFAR100", "cifar-100-binary.tar.gz", 168_513_733, "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary", "cifar-100-python",
        {"train.bin": (153_700_000, "train"), "test.bin": (30_740_000, "test"), "fine_label_names.txt": (None, "meta")},
    ),
    Entry(
        "SVHN", "http://ufldl.stanford.edu/housenumbers", "non-commercial use only",
        (
            _file("http://ufldl.stanford.edu/housenumbers/train_32x32.mat", "svhn/train_32x32.mat", 182_040_794,
                  "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
            _file("http://ufldl.stanford.edu/housenumbers/test_32x32.mat", "svhn/test_32x32.mat", 64_275_384,
                  "md5:eb5a983be6a315427106f1b164d9cef3"),
        ),
    ),
    Entry(
        "STL10", "https://cs.stanford.edu/~acoates/stl10", "none stated; images of ImageNet",
        (
            Download(
                "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
                (
                    _stl10("train_X.bin", "md5:918c2871b30a85fa023e0c44e0bee87f"),
                    _stl10("train_y.bin", "md5:5a34089d4802c674881badbb80307741"),
                    _stl10("test_X.bin", "md5:7f263ba9f9e0b06b93213547f721ac82"),
                    _stl10("test_y.bin", "md5:36f9794fa4beb8a2c72628de14fa638e"),
                    _stl10("class_names.txt", None),
                ),
                2_640_397_119, "md5:91f7769df0f17e558f3565bffb0c7dfb", unpacked=360_000_000,
            ),
        ),
        ("The 100,000 images without labels, most of the archive, are left out.",),
    ),
    Entry(
        "PCAM", "https://github.com/basveeling/pcam", "CC0",
        (
            _pcam("train", "x", 6_421_353_462, "1571f514728f59376b705fc836ff4b63", 7_248_000_000),
            _pcam("train", "y", 21_378, "35c2d7259d906cfc8143347bb8e05be7", 270_000),
            _pcam("valid", "x", 805_965_320, "d5b63470df7cfa627aeec8b9dc0c066e", 906_000_000),
            _pcam("valid", "y", 3_038, "2b85f58b927af9964a4c15b8f7e8f179", 40_000),
            _pcam("test", "x", 800_875_929, "d8c2d60d490dbd479f8199bdfa0cf6ec", 906_000_000),
            _pcam("test", "y", 3_040, "60a7035772fbdb7f34eb86d4420cf66a", 40_000),
        ),
        ("Fetched from Zenodo, whose names and sums are torchvision's too; the table on GitHub has those of valid and test exchanged.",),
    ),
    Entry(
        "FER2013", "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge",
        "Kaggle's terms of that competition",
        (
            Download(
                "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge/data",
                (Item("fer2013/icml_face_data.csv", checksum="md5:b114b9e04e6949e5fe8b6a98b3892b1d",
                      others=("fer2013/fer2013.csv", "fer2013/train.csv")),),
                name="icml_face_data.csv", by_hand=True,
            ),
        ),
        (
            "Kaggle asks for an account. fer2013.csv, from fer2013.tar.gz on the same page, serves as well.",
            "train.csv is read too, but the test.csv of that page has no labels.",
        ),
    ),
    Entry(
        "RenderedSST2", "https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md", "see its page",
        (
            Download(
                "https://openaipublic.azureedge.net/clip/data/rendered-sst2.tgz",
                (_folder("rendered-sst2/train", 6920, "rendered-sst2/train"), _folder("rendered-sst2/valid", 872, "rendered-sst2/valid"),
                 _folder("rendered-sst2/test", 1821, "rendered-sst2/test")),
                131_000_000, "md5:2384d08e9dcfa4bd55b324e610496ee5",
            ),
        ),
    ),
    Entry(
        "DTD", f"{_OXFORD}/dtd", "research use",
        (
            Download(
                f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz",
                (_folder("dtd/images", 5640, "dtd/images", "dtd/dtd/images"), _folder("dtd/labels", 30, "dtd/labels", "dtd/dtd/labels")),
                625_239_812, "md5:fff73e5086ae6bdbea199a49dfb8a4c1",
            ),
            _coop("dtd/split_zhou_DescribableTextures.json", "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x"),
        ),
    ),
    Entry(
        "EuroSAT", "https://github.com/phelber/eurosat", "MIT",
        (
            Download(
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                (_folder("eurosat/2750", 27000, "2750", "EuroSAT_splits", "eurosat/EuroSAT_splits"),),
                94_280_567, "md5:c8fa014336c82ac7804f0398fcb19387",
            ),
            _coop("eurosat/split_zhou_EuroSAT.json", "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o"),
        ),
    ),
    Entry(
        "GTSRB", "https://benchmark.ini.rub.de", "see its page",
        (
            Download(f"{_GTSRB}/GTSRB-Training_fixed.zip", (_folder("gtsrb/GTSRB/Training", 26640, "GTSRB/Training"),),
                     187_490_228, "md5:513f3c79a4c5141765e10e952eaa2478"),
            Download(f"{_GTSRB}/GTSRB_Final_Test_Images.zip", (_folder("gtsrb/GTSRB/Final_Test/Images", 12630, "GTSRB/Final_Test/Images"),),
                     88_978_620, "md5:c7e4e6327067d32654124b0fe9e82185"),
            Download(f"{_GTSRB}/GTSRB_Final_Test_GT.zip", (Item("gtsrb/GT-final_test.csv", others=("gtsrb/GTSRB/GT-final_test.csv",)),),
                     99_620, "md5:fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
        ),
    ),
    Entry(
        "RESISC45", "https://doi.org/10.1109/jproc.2017.2675998", "research use",
        (
            Download(
                f"{_RESISC45}/NWPU-RESISC45.zip",
                (_folder("resisc45/NWPU-RESISC45", 31500),),
                430_000_000, "sha256:beeecd0b63656290ae6d65cf7763185b0c1c4c54a753ef8088d6fba3faaf1f53",
            ),
            _resisc("train", "ecfa963be4d85eac83665f8be8634abcb4fe6f3546472cc0e87999e2cab4449b"),
            _resisc("val", "08d81f642526bec240589000af7f49a47e8d071a6e7925b0f36246a78ab64342"),
            _resisc("test", "e0927e80130b47317a2f18520d98382b6fc56f0d3edd3345140f7d02267c3805"),
        ),
        (
            "Fetched from TorchGeo's copy. By hand: unpack NWPU-RESISC45.rar (https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs) into "
            "{data}/resisc45, with a program for .rar, and beside it the three lists resisc45-{train,val,test}.txt of "
            "https://storage.googleapis.com/remote_sensing_representations/resisc45-train.txt (-val.txt, -test.txt).",
        ),
    ),
    Entry(
        "Cars", "https://www.kaggle.com/datasets/rickyyyyyyy/torchvision-stanford-cars", "non-commercial research",
        (
            _cars("cars_train.tgz", 979_269_282, "065e5b463ae28d29e77c1b4b166cfe61",
                  _folder("stanford_cars/cars_train", 8144)),
            _cars("cars_test.tgz", 977_350_468, "4ce7ebf6a94d07f1952d94dd34c4d501",
                  _folder("stanford_cars/cars_test", 8041)),
            _cars("car_devkit.tgz", 330_960, "c3b158d763b6e2245038c8ad08e45376",
                  _folder("stanford_cars/devkit", 2)),
            _cars("cars_test_annos_withlabels.mat", 185_758, "b0a2b23655a3edd16d84508592a98d10",
                  Item("stanford_cars/cars_test_annos_withlabels.mat")),
            _coop("stanford_cars/split_zhou_StanfordCars.json", "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT"),
        ),
        (
            "The authors' server is off. Their archives, of which copies go round, are taken as above. Or unpack another copy so that the "
            "files lie as told below: the one named as page has all of them; the images of another, "
            "https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset, are one folder deeper (cars_train/cars_train): "
            "move them up.",
        ),
    ),
    Entry(
        "SUN397", "https://vision.princeton.edu/projects/2010/SUN", "see its page",
        (
            Download("http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz", (_folder("sun397/SUN397", 108_754),),
                     39_077_296_924, "md5:8ca2778205c41d23104230ba66911c7a"),
            Download(
                "https://vision.princeton.edu/projects/2010/SUN/download/Partitions.zip",
                tuple(Item(f"sun397/{file}.txt") for file in ("ClassName", "Training_01", "Testing_01")),
                18_293_705, "sha256:e3311ea5f812d4cc6faef194688343d1111f6cd6f70f2c62f393c2b8d6ba1ec9", unpacked=3_000_000,
            ),
            _coop("sun397/split_zhou_SUN397.json", "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq"),
        ),
    ),
    Entry(
        "Food101", "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101", "see its page",
        (
            Download(
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                (_folder("food-101/images", 101_000, "food-101/images"), _folder("food-101/meta", 3, "food-101/meta")),
                4_996_278_331, "md5:85eeb15f3717b99a5da872d97d918f87",
            ),
            _coop("food-101/split_zhou_Food101.json", "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl"),
        ),
    ),
    Entry(
        "Flowers102", f"{_OXFORD}/flowers/102", "see its page",
        (
            Download(f"{_OXFORD}/flowers/102/102flowers.tgz", (_folder("oxford_flowers/jpg", 8189),),
                     344_862_509, "md5:52808999861908f626f3c1f4e79d11fa"),
            _file(f"{_OXFORD}/flowers/102/imagelabels.mat", "oxford_flowers/imagelabels.mat", 502, "md5:e0620be6f572b9609742df49c70aed4d"),
            _file(f"{_OXFORD}/flowers/102/setid.mat", "oxford_flowers/setid.mat", 14_989, "md5:a5357ecc9cb78c4bef273ce3793fc85c"),
            _coop("oxford_flowers/cat_to_name.json", "1AkcxCXeK_RCGCEC_GvmWxjcjaNhu-at0"),
            _coop("oxford_flowers/split_zhou_OxfordFlowers.json", "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT"),
        ),
    ),
    Entry(
        "OxfordPets", f"{_OXFORD}/pets", "CC BY-SA 4.0",
        (
            Download(f"{_OXFORD}/pets/data/images.tar.gz", (_folder("oxford_pets/images", 7390),),
                     791_918_971, "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            Download(f"{_OXFORD}/pets/data/annotations.tar.gz", (_folder("oxford_pets/annotations", 2),),
                     19_173_078, "md5:95a8c909bbe2e81eed6a22bccdf3f68f"),
            _coop("oxford_pets/split_zhou_OxfordPets.json", "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs"),
        ),
    ),
    Entry(
        "Caltech101", "https://data.caltech.edu/records/mzrjq-6wc02", "CC BY 4.0",
        (
            Download(
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                (_folder("caltech-101/101_ObjectCategories", 9144),),
                137_414_764, "md5:3138e1922a9193bfa496528edbbc45d0", unpacked=280_000_000,
                nested="caltech-101/101_ObjectCategories.tar.gz",
            ),
            _coop("caltech-101/split_zhou_Caltech101.json", "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN", only=""),
        ),
    ),
    Entry(
        "FGVCAircraft", f"{_OXFORD}/fgvc-aircraft", "non-commercial research",
        (
            Download(
                f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                (
                    _folder("fgvc_aircraft/images", 10_000, "fgvc-aircraft-2013b/data/images"),
                    *(Item(f"fgvc_aircraft/{file}.txt", f"fgvc-aircraft-2013b/data/{file}.txt")
                      for file in ("variants", "images_variant_train", "images_variant_val", "images_variant_test")),
                ),
                2_753_340_328,
            ),
        ),
    ),
    Entry(
        "UCF101", "https://www.crcv.ucf.edu/data/UCF101.php", "see its page",
        (
            Download(
                "https://drive.google.com/file/d/10Jqome3vtUA2keJkNanAiFpgbyC9Hc2O/view", (_folder("ucf101/UCF-101-midframes", 13_320),),
                name="UCF-101-midframes.zip", by_hand=True,
            ),
            Download(
                "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
                tuple(Item(f"ucf101/ucfTrainTestlist/{file}.txt", f"ucfTrainTestlist/{file}.txt")
                      for file in ("classInd", "trainlist01", "testlist01")),
                by_hand=True,
            ),
            _coop("ucf101/split_zhou_UCF101.json", "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y"),
        ),
        ("The images are the videos' middle frames, as CoOp published them.",),
    ),
    Entry(
        "CUB", "https://data.caltech.edu/records/65de6-vp158", "non-commercial research",
        (
            Download("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", (_folder("CUB_200_2011", 11_792),),
                     1_150_585_339, "md5:97eceeb196236b17998738112f37df78"),
            _imo("cub/split_alexey_cub.json"),
        ),
    ),
    Entry(
        "StanfordDogs", "http://vision.stanford.edu/aditya86/ImageNetDogs", "ImageNet's terms",
        (
            Download(f"{_DOGS}/images.tar", (_folder("stanford_dogs/Images", 20_580),),
                     793_579_520, "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58"),
            Download(
                f"{_DOGS}/lists.tar",
                tuple(Item(f"stanford_dogs/{part}_list.mat", others=(f"stanford_dogs/lists/{part}_list.mat",))
                      for part in ("train", "test")),
                481_280, "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
            ),
            _imo("stanford_dogs/split_alexey_stanford_dogs.json"),
        ),
    ),
    Entry(
        "PlantDoc", "https://github.com/pratikkayal/PlantDoc-Dataset", "CC BY 4.0",
        (
            Download(
                f"https://github.com/pratikkayal/PlantDoc-Dataset/archive/{_PLANTDOC}.zip",
                (_folder("plantdoc/train", 2342, f"PlantDoc-Dataset-{_PLANTDOC}/train"),
                 _folder("plantdoc/test", 236, f"PlantDoc-Dataset-{_PLANTDOC}/test")),
                1_000_000_000,
            ),
            Download(_SPLITS_PAGE, (_folder("plantdoc/all_images", 2576),), by_hand=True, only="coop"),
            _imo("plantdoc/split_alexey_plantdoc.json"),
        ),
        ("@coop: all images in one folder, under the names that its split file has.",),
    ),
    Entry(
        "ImageNet", "https://image-net.org/download.php", "non-commercial research, on request",
        (Download("https://image-net.org/download.php",
                  (_folder("imagenet/train", 1_281_167, None, "imagenet/images/train"),
                   _folder("imagenet/val", 50_000, None, "imagenet/images/val")),
                  by_hand=True),),
        (
            "Ask for access, and put ILSVRC2012_img_train.tar (138 GB), ILSVRC2012_img_val.tar (6.3 GB) and ILSVRC2012_devkit_t12.tar.gz "
            "into {data}/imagenet. Torchvision checks and unpacks them, in an hour or more:",
            "  python -c \"from torchvision.datasets import ImageNet as I; I('{data}/imagenet', 'train'); I('{data}/imagenet', 'val')\"",
            "@coop needs {data}/imagenet/classnames.txt too, from https://drive.google.com/file/d/1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF/view.",
        ),
    ),
    Entry(
        "ImageNetV2", "https://github.com/modestyachts/ImageNetV2", "MIT",
        (Download("https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz",
                  (_folder("imagenetv2-matched-frequency-format-val", 10_000),),
                  1_264_079_360, "sha256:f0c37fdf925916b19ea1323cd9a2208cdb6959ba2c32eef2a7fc393835c9ca7c"),),
    ),
    Entry(
        "ImageNetSketch", "https://github.com/HaohanWang/ImageNet-Sketch", "MIT",
        (Download("https://huggingface.co/datasets/songweig/imagenet_sketch/resolve/main/data/ImageNet-Sketch.zip",
                  (_folder("sketch", 50_889, "sketch", "imagenet-sketch"),), 7_593_573_012),),
    ),
    Entry(
        "ImageNetRendition", "https://github.com/hendrycks/imagenet-r", "MIT",
        (Download("https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar", (_folder("imagenet-r", 30_000),),
                  2_191_079_936, "sha256:18c6bf493b39a0d975d48e587437f562caab9c52ae6327dcfa9dd8eb54aa1b52"),),
    ),
    Entry(
        "ImageNetAdversarial", "https://github.com/hendrycks/natural-adv-examples", "MIT",
        (Download("https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar", (_folder("imagenet-a", 7500),),
                  687_552_512, "sha256:3bb3632277e6ba6392ea64c02ddbf4dd2266c9caffd6bc09c9656d28f012589e"),),
    ),
    Entry(
        "FMoW", "https://wilds.stanford.edu/datasets/#fmow", "FMoW Challenge Public License",
        (
            Download(
                "https://worksheets.codalab.org/rest/bundles/0xaec91eb7c9d548ebb15e1b5e60f966ab/contents/blob/",
                (
                    _folder("fmow_v1.1/images", 1), Item("fmow_v1.1/rgb_metadata.csv"),
                    Item("fmow_v1.1/country_code_mapping.csv"), Item("fmow_v1.1/RELEASE_v1.1.txt"),
                ),
                53_893_324_800, name="fmow_v1.1.tar.gz",
            ),
        ),
        ("The address is that of the package wilds, which fetches it too: wilds.get_dataset('fmow', root_dir='{data}', download=True).",),
        aliases=("FMoW-id", "FMoW-ood"),
    ),
    Entry(
        "OpenImages", "https://storage.googleapis.com/openimages/web/download_v7.html", "images CC BY 2.0, labels CC BY 4.0",
        (Download("https://storage.googleapis.com/openimages/web/download_v7.html",
                  (Item("openimages/train.csv", others=("openimages/oi_data.csv",)), _folder("openimages/images", 1)), by_hand=True),),
        (
            "openimages/train.csv has the columns ImageID and DisplayName: any choice of images with one label each, or oi_data.csv of "
            f"{_IMO_PAGE} where it can be had.",
            "The images are openimages/images/<ImageID>.jpg. With the ids in a file of lines train/<ImageID>, the page's downloader.py "
            "fetches them: python downloader.py ids.txt --download_folder={data}/openimages/images",
        ),
    ),
)  # fmt: skip
