"""Builds the C++ engine once per instruction set; where no compiler is, it is left out."""

import platform
import sys

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = [
    "-O3",
    "-std=c++17",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-pthread",
]
BUILDS = {"plain": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    BUILDS["avx2"] = ["-mavx2", "-mfma"]
    BUILDS["avx512"] = [
        "-mavx512f",
        "-mavx512dq",
        "-mavx512bw",
        "-mavx512vl",
        "-mfma",
        "-mprefer-vector-width=512",
    ]
HEADERS = [f"schnet/engine/src/{h}.h" for h in ("simd", "cfconv", "filter_table", "engine")]


class BuildEngine(build_ext):
    """With OpenMP where the compiler has it, with std::thread where not."""

    def build_extension(self, ext):
        plain = list(ext.extra_compile_args), list(ext.extra_link_args)
        try:
            ext.extra_compile_args.append("-fopenmp")
            ext.extra_link_args.append("-fopenmp")
            super().build_extension(ext)
        except Exception:
            ext.extra_compile_args, ext.extra_link_args = plain
            super().build_extension(ext)


setup(
    cmdclass={"build_ext": BuildEngine},
    ext_modules=[
        Extension(
            f"schnet.engine._engine_{build}",
            [f"schnet/engine/src/engine_{build}.cpp"],
            depends=HEADERS,
            extra_compile_args=FLAGS + flags,
            extra_link_args=["-pthread"],
            optional=True,
        )
        for build, flags in BUILDS.items()
        if sys.platform != "win32"  # no GCC vector extensions: the PyTorch path is used there
    ],
)
