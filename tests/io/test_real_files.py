"""Every file of the real data, one line each: read as the line says, or refused as the line says.

Geometry and voxels are compared with nibabel (NIfTI and its kin) and with SimpleITK (NRRD, MetaImage,
DICOM). The table is complete: a file that appears in the folders without a line fails the test.
"""

from __future__ import annotations

import fnmatch
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from samaritan import LabelMap, Volume, errors, read
from samaritan.io import read_labels

FOLDERS = ["geometry", "volumes", "dicom", "totalsegmentator"]

TABLE = """
geometry/itkelastix/CT_2D_head_fixed.mha | 256x256x1 LPS 1 1 1 int16 |
geometry/itkelastix/CT_2D_head_fixed_mask.mha | 256x256x1 LPS 1 1 1 uint8 |
geometry/itkelastix/CT_2D_head_moving.mha | 256x256x1 LPS 1 1 1 int16 |
geometry/itkelastix/CT_2D_head_moving_mask.mha | 256x256x1 LPS 1 1 1 uint8 |
geometry/itkelastix/CT_3D_lung_fixed_mask.mha | 115x157x129 LPS 1.366 1.366 2.5 uint8 |
geometry/itkelastix/CT_3D_lung_moving_mask.mha | 115x166x131 LPS 1.366 1.366 2.5 uint8 |
geometry/monai/anatomical.nii | 33x41x25 LAS 2 2 2 int16 |
geometry/monai/anatomical_label.nii.gz | 33x41x25 LAS 2 2 2 uint16 |
geometry/monai/reoriented_anat_moved.nii | 21x26x22 RAS 4 4 4 float32 |
geometry/monai/reoriented_anat_moved_label.nii.gz | 21x26x22 RAS 4 4 4 uint16 |
geometry/nibabel/analyze.hdr | FileError | is half of a pair
geometry/nibabel/anatomical.nii | 33x41x25 LAS 2 2 2 int16 |
geometry/nibabel/example4d+orig.BRIK.gz | FileError | holds 3 frames
geometry/nibabel/example4d+orig.HEAD | FileError | holds 3 frames
geometry/nibabel/example4d.nii.gz | FileError | holds 2 frames
geometry/nibabel/example_nifti2.nii.gz | FileError | holds 2 frames
geometry/nibabel/functional.nii | FileError | holds 20 frames
geometry/nibabel/minc1_1_scale.mnc | 10x20x20 SAR 2 2 2 float32 |
geometry/nibabel/minc2_1_scale.mnc | 10x20x20 SAR 2 2 2 float32 |
geometry/nibabel/nifti1.hdr | FileError | is half of a pair
geometry/nibabel/nifti2.hdr | FileError | is half of a pair
geometry/nibabel/phantom_EPI_asc_CLEAR_2_1.PAR | FileError | holds 3 frames
geometry/nibabel/phantom_EPI_asc_CLEAR_2_1.REC | FileError | holds 3 frames
geometry/nibabel/reoriented_anat_moved.nii | 21x26x22 RAS 4 4 4 float32 |
geometry/nibabel/resampled_anat_moved.nii | 17x21x3 LAS 4 4 8 float32 | 153 of 1071 values are NaN
geometry/nibabel/small.mnc | 18x28x29 SAR 9 8 7 float32 |
geometry/nibabel/standard.nii.gz | 4x5x7 RAS 1 3 2 uint8 |
geometry/nibabel/test.mgz | FileError | holds 2 frames
geometry/niivue/AIL.nii.gz | 79x67x64 AIL 2.39 2.366 2.385 float32 |
geometry/niivue/FLAIR.nii.gz | 124x160x140 RAS 1 1 1 uint8 |
geometry/niivue/FLAIR.nrrd | 124x160x140 RAS 1 1 1 uint8 |
geometry/niivue/V1.nii.gz | 84x92x56x3 LAS 2.2 2.2 2.2 float32 |
geometry/niivue/avg152T1_RL_nifti.nii.gz | 91x109x91 RAS 2 2 2 uint8 |
geometry/niivue/complex.nii.gz | UnsupportedFormat | holds complex voxels
geometry/niivue/ct_perfusion.nii.gz | 256x286x15x3 LAS 0.7812 0.7812 10 uint8 |
geometry/niivue/draw.nii.gz | 79x67x64 AIL 2.39 2.366 2.385 uint8 |
geometry/niivue/enh.dcm | 64x64x6 LPS 3.375 3.375 2.4 uint16 |
geometry/niivue/lesion.nii.gz | 124x160x140 RAS 1 1 1 uint8 |
geometry/niivue/low_res.nii.gz | 7x5x3 RAS 2 2 2 uint8 |
geometry/niivue/mha.mha | 64x64x37 LAS 3.438 3.438 3.8 int16 |
geometry/niivue/minimal.nii.gz | 64x64x10 LAS 3 3 3 uint8 | No orientation is stored
geometry/niivue/ras.hdr | 62x41x34 RAS 2.385 2.39 2.366 uint8 |
geometry/niivue/ras.img | 62x41x34 RAS 2.385 2.39 2.366 uint8 |
geometry/niivue/shear.nii.gz | 306x422x54 RAS 0.4824 0.4824 2.371 float32 | axes are sheared
geometry/niivue/torsoLabel.nii.gz | 384x320x89 RAS 0.782 0.782 5 uint8 |
geometry/pynrrd/BallBinary30x30x30.nhdr | 30x30x30 LPS 1 1 1 int16 |
geometry/pynrrd/BallBinary30x30x30.nii.gz | 30x30x30 LPS 1 1 1 int16 |
geometry/pynrrd/BallBinary30x30x30.nrrd | 30x30x30 LPS 1 1 1 int16 |
geometry/pynrrd/BallBinary30x30x30.raw | UnsupportedFormat | raw voxels without a header
geometry/pynrrd/BallBinary30x30x30_byteskip_minus_five.nhdr | CorruptFile | byte skip -5
geometry/pynrrd/BallBinary30x30x30_byteskip_minus_one.nhdr | 30x30x30 LPS 1 1 1 int16 |
geometry/pynrrd/BallBinary30x30x30_byteskip_minus_one_nifti.nhdr | 30x30x30 LPS 1 1 1 int16 |
geometry/pynrrd/BallBinary30x30x30_bz2.nrrd | 30x30x30 LPS 1 1 1 int16 |
geometry/pynrrd/BallBinary30x30x30_gz.nrrd | 30x30x30 LPS 1 1 1 int16 |
geometry/pynrrd/BallBinary30x30x30_gz_byteskip_minus_one.nrrd | 30x30x30 LPS 1 1 1 int16 |
geometry/pynrrd/BallBinary30x30x30_gz_lineskip.nrrd | 30x30x30 LPS 1 1 1 int16 |
geometry/pynrrd/BallBinary30x30x30_nifti.nhdr | CorruptFile | the data go on
geometry/pynrrd/test1d_ascii.nrrd | UnsupportedFormat | 1 axes of space
geometry/pynrrd/test2d_ascii.nrrd | 3x9x1 LPS 1.046 2 1 uint16 | No space
geometry/pynrrd/test_customFields.nrrd | UnsupportedFormat | 1 axes of space
geometry/pynrrd/test_simple4d_raw.nrrd | 1x1x1 RAS 1.5 1.5 1 float64 | No origin is stored
volumes/ms_lesions/patient07_FLAIR*brain_N4_regtoMNI.nii.gz | 182x218x182 LAS 1 1 1 float32 |
volumes/ms_lesions/patient07_GOLD_STANDARD*.nii.gz | 182x218x182 LAS 1 1 1 uint8 |
volumes/ms_lesions/patient19_FLAIR*brain_N4_regtoMNI.nii.gz | 182x218x182 LAS 1 1 1 float32 |
volumes/ms_lesions/patient19_GOLD_STANDARD*.nii.gz | 182x218x182 LAS 1 1 1 uint8 |
volumes/pyradiomics/brain1_image.nrrd | 256x256x25 LAS 0.7812 0.7812 6.5 int16 |
volumes/pyradiomics/brain1_label.nrrd | 256x256x25 LAS 0.7812 0.7812 6.5 int32 |
volumes/pyradiomics/brain2_image.nrrd | 256x256x23 LAS 0.7812 0.7812 6.5 int16 |
volumes/pyradiomics/brain2_label.nrrd | 256x256x23 LAS 0.7812 0.7812 6.5 int32 |
volumes/pyradiomics/breast1_image.nrrd | 45x120x21 LPS 0.6641 0.6641 2.1 int16 |
volumes/pyradiomics/breast1_label.nrrd | 45x120x21 LPS 0.6641 0.6641 2.1 int16 |
volumes/pyradiomics/prostate_phantom_subvolume-label.nrrd | 82x67x13 RAS 0.5 0.5 3 int16 |
volumes/pyradiomics/prostate_phantom_subvolume.nrrd | 82x67x13 RAS 0.5 0.5 3 uint16 |
volumes/sct/LICENSE | UnsupportedFormat | its format is not known
volumes/sct/dmri/dmri.nii.gz | FileError | holds 7 frames
volumes/sct/mt/mt0.nii.gz | 40x40x5 LAS 0.8437 0.8437 17 int16 |
volumes/sct/mt/mt0_seg.nii.gz | 40x40x5 LAS 0.8437 0.8438 17 uint8 |
volumes/sct/mt/mt1.nii.gz | 40x40x5 LAS 0.8437 0.8437 17 int16 |
volumes/sct/mt/mt1_gmseg_goldstandard.nii.gz | 40x40x5 LAS 0.8438 0.8438 17 float32 |
volumes/sct/t1/t1w.nii.gz | 42x76x77 RAS 1 1 1 int16 |
volumes/sct/t1/t1w_seg-manual.nii.gz | 42x76x77 RAS 1 1 1 uint8 |
volumes/sct/t2/t2.nii.gz | 60x55x52 PSR 1 1 1 int16 |
volumes/sct/t2/t2_seg-manual.nii.gz | 60x55x52 PSR 1 1 1 uint8 |
volumes/sct/t2/t2_seg-manual_labeled.nii.gz | 60x55x52 PSR 1 1 1 float64 |
volumes/sct/t2s/t2s.nii.gz | 49x54x9 LAS 0.5 0.5 7.5 float32 |
volumes/sct/t2s/t2s_gmseg_manual.nii.gz | 49x54x9 LAS 0.5 0.5 7.5 int16 |
volumes/sct/t2s/t2s_seg.nii.gz | 49x54x9 LAS 0.5 0.5 7.5 uint8 |
volumes/sct/t2s/t2s_uncropped.nii.gz | 320x320x11 LAS 0.5 0.5 7.5 uint8 |
volumes/sct/t2s/t2s_uncropped_gmseg_manual.nii.gz | 320x320x11 LAS 0.5 0.5 7.5 int16 |
dicom/dcmqi/segmentations/heart_seg.nrrd | 512x512x3 LPS 0.8105 0.8105 1 int16 |
dicom/dcmqi/segmentations/liver.dcm | 512x512x3 LPS 0.8105 0.8105 1 uint8 |
dicom/dcmqi/segmentations/liver_seg.nrrd | 512x512x3 LPS 0.8105 0.8105 1 int16 |
dicom/dcmqi/segmentations/liver_spine_gapped_seg.nrrd | 512x512x3 LPS 0.8105 0.8105 1 int16 |
dicom/dcmqi/segmentations/liver_spine_seg.nrrd | 512x512x3 LPS 0.8105 0.8105 1 int16 |
dicom/dcmqi/segmentations/partial_overlaps-1.nrrd | 512x512x3 LPS 0.8105 0.8105 1 int16 |
dicom/dcmqi/segmentations/partial_overlaps-2.nrrd | 512x512x3 LPS 0.8105 0.8105 1 int16 |
dicom/dcmqi/segmentations/partial_overlaps-3.nrrd | 512x512x3 LPS 0.8105 0.8105 1 int16 |
dicom/dcmqi/segmentations/partial_overlaps.dcm | FileError | segments overlap in
dicom/dcmqi/segmentations/sparse-labelmap-noppv.dcm | 24x38x3 LPS 0.7 0.7 2.5 uint8 | 1 of 3 slices are not s
dicom/dcmqi/segmentations/sparse-labelmap-ppv5.dcm | 24x38x3 LPS 0.7 0.7 2.5 uint8 | padding value 5
dicom/dcmqi/segmentations/sparse_labelmap_noppv_seg.nrrd | 24x38x3 LPS 0.7 0.7 2.5 int16 |
dicom/dcmqi/segmentations/sparse_labelmap_ppv5_seg.nrrd | 24x38x3 LPS 0.7 0.7 2.5 int16 |
dicom/dcmqi/segmentations/spine_seg.nrrd | 512x512x3 LPS 0.8105 0.8105 1 int16 |
dicom/dcmqi/segmentations/spine_seg_label5.nrrd | 512x512x3 LPS 0.8105 0.8105 1 int16 |
dicom/dcmqi/segmentations/23x38x3/image/IMG0001.dcm | 23x38x1 LPS 0.7 0.7 2.5 uint16 | This is one slice
dicom/dcmqi/segmentations/23x38x3/image/IMG0002.dcm | 23x38x1 LPS 0.7 0.7 2.5 uint16 | This is one slice
dicom/dcmqi/segmentations/23x38x3/image/IMG0003.dcm | 23x38x1 LPS 0.7 0.7 2.5 uint16 | This is one slice
dicom/dcmqi/segmentations/23x38x3/multiframe/mf.dcm | 23x38x3 LPS 0.7 0.7 2.5 uint16 |
dicom/dcmqi/segmentations/23x38x3/nrrd/label.nrrd | 23x38x3 LPS 0.7 0.7 2.5 int16 |
dicom/dcmqi/segmentations/23x38x3/seg/label.seg | 23x38x3 LPS 0.7 0.7 2.5 uint8 |
dicom/dcmqi/segmentations/24x38x3/image/IMG0001.dcm | 24x38x1 LPS 0.7 0.7 2.5 uint16 | This is one slice
dicom/dcmqi/segmentations/24x38x3/image/IMG0002.dcm | 24x38x1 LPS 0.7 0.7 2.5 uint16 | This is one slice
dicom/dcmqi/segmentations/24x38x3/image/IMG0003.dcm | 24x38x1 LPS 0.7 0.7 2.5 uint16 | This is one slice
dicom/dcmqi/segmentations/24x38x3/multiframe/mf.dcm | 24x38x3 LPS 0.7 0.7 2.5 uint16 |
dicom/dcmqi/segmentations/24x38x3/nrrd/label.nrrd | 24x38x3 LPS 0.7 0.7 2.5 int16 |
dicom/dcmqi/segmentations/24x38x3/seg/label.seg | 24x38x3 LPS 0.7 0.7 2.5 uint8 |
dicom/dcmqi/segmentations/ct-3slice/01.dcm | 512x512x1 LPS 0.8105 0.8105 1.25 int16 | This is one slice
dicom/dcmqi/segmentations/ct-3slice/02.dcm | 512x512x1 LPS 0.8105 0.8105 1.25 int16 | This is one slice
dicom/dcmqi/segmentations/ct-3slice/03.dcm | 512x512x1 LPS 0.8105 0.8105 1.25 int16 | This is one slice
dicom/dcmqi/sr-example/rwvm.dcm | UnsupportedFormat | it is a Real World Value Mapping Storage
dicom/dcmqi/sr-example/seg.dcm | 128x128x13 LPS 3.538 3.538 3.375 uint8 |
dicom/dcmqi/sr-example/sr.dcm | UnsupportedFormat | it is a Comprehensive SR Storage
dicom/highdicom/README.md | UnsupportedFormat | its format is not known
dicom/highdicom/ct_image.dcm | 128x128x1 LPS 0.6615 0.6615 5 int16 | This is one slice
dicom/highdicom/dx_image.dcm | 169x211x1 PLS 1.2 1.201 1 uint8 | MONOCHROME1
dicom/highdicom/frame_rgb.jpeg | 80x80x1x3 PLS 1 1 1 uint8 |
dicom/highdicom/frame_rgb_empty.jpeg | 16x32x1x3 PLS 1 1 1 uint8 |
dicom/highdicom/seg_image_cr_binary.dcm | 16x16x1 PLS 1 1 1 uint8 | No position in the patient
dicom/highdicom/seg_image_ct_binary.dcm | 16x16x3 LPS 0.4883 0.4883 1.25 uint8 |
dicom/highdicom/seg_image_ct_binary_fractional.dcm | 16x16x3x1 LPS 0.4883 0.4883 1.25 float32 |
dicom/highdicom/seg_image_ct_binary_overlap.dcm | FileError | segments overlap in
dicom/highdicom/seg_image_ct_binary_single_frame.dcm | 128x128x1 LPS 0.6615 0.6615 5 uint8 |
dicom/highdicom/seg_image_ct_true_fractional.dcm | 16x16x3x1 LPS 0.4883 0.4883 1.25 float32 |
dicom/highdicom/seg_image_sm_control.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/seg_image_sm_control_labelmap.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/seg_image_sm_control_labelmap_p*.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/seg_image_sm_dots.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/seg_image_sm_dots_tiled_full.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/seg_image_sm_numbers.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/sm_annotations.dcm | UnsupportedFormat | it is a Microscopy Bulk Simple Annotations Storage
dicom/highdicom/sm_image.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/sm_image_control.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/sm_image_dots.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/sm_image_grayscale.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/sm_image_grayscale_reversed.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/sm_image_jpegls.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/sm_image_jpegls_nobot.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/sm_image_numbers.dcm | UnsupportedFormat | is a tiled microscopy image
dicom/highdicom/sr_document.dcm | UnsupportedFormat | it is a Comprehensive 3D SR Storage
dicom/highdicom/sr_document_with_multiple_groups.dcm | UnsupportedFormat | it is a Comprehensive 3D SR Storage
dicom/rtutils/empty/dummy_rt.dcm | UnsupportedFormat | it is a RT Structure Set Storage
dicom/rtutils/mock_data/ct_1.dcm | 512x512x1 LPS 0.4883 0.4883 5 int16 | This is one slice
dicom/rtutils/mock_data/ct_2.dcm | 512x512x1 LPS 0.4883 0.4883 5 int16 | This is one slice
dicom/rtutils/mock_data/invalid_reference_rt.dcm | UnsupportedFormat | it is a RT Structure Set Storage
dicom/rtutils/mock_data/non_existent_reference_rt.dcm | UnsupportedFormat | it is a RT Structure Set Storage
dicom/rtutils/mock_data/rt.dcm | UnsupportedFormat | it is a RT Structure Set Storage
dicom/rtutils/one_slice_data/0.dcm | 100x50x1 LPS 2.5 3.5 1 float32 | thickness of the only slice is not stor
dicom/rtutils/oriented_data/0.dcm | 100x50x1 LPS 2.5 3.5 1 float32 | thickness of the only slice is not stored
dicom/rtutils/oriented_data/1.dcm | 100x50x1 LPS 2.5 3.5 1 float32 | thickness of the only slice is not stored
dicom/rtutils/oriented_data/2.dcm | 100x50x1 LPS 2.5 3.5 1 float32 | thickness of the only slice is not stored
dicom/torchio/dicom/IMG*.dcm | 88x128x1 RAS 2 2 2 int16 | This is one slice
totalsegmentator/example_ct.nii.gz | 122x101x112 RAS 3 3 3 int32 |
totalsegmentator/example_ct_sm.nii.gz | 122x101x30 RAS 3 3 3 int16 |
totalsegmentator/example_mr_sm.nii.gz | 117x91x20 LPS 3 3 3 int16 |
totalsegmentator/example_seg.nii.gz | 122x101x30 RAS 3 3 3 uint8 |
totalsegmentator/example_seg_dicom.nii.gz | 512x512x20 LAS 0.9766 0.9766 2 uint8 |
totalsegmentator/example_seg_fast_force_split.nii.gz | 122x101x112 RAS 3 3 3 uint8 |
totalsegmentator/example_seg_mr.nii.gz | 117x91x20 LPS 3 3 3 uint8 |
totalsegmentator/example_ct_dicom/CT.* | 512x512x1 LPS 0.9766 0.9766 3 int16 | This is one slice
"""
"""File | shape, orientation, spacing, type; or the error | part of a note or of the error's text."""

ROWS = [
    [part.strip() for part in f"{line} | | ".split("|")[:3]] for line in TABLE.strip().splitlines()
]

SERIES = {
    "dicom/dcmqi/segmentations/23x38x3/image": ((23, 38, 3), "LPS", (0.7, 0.7, 2.5)),
    "dicom/dcmqi/segmentations/24x38x3/image": ((24, 38, 3), "LPS", (0.7, 0.7, 2.5)),
    "dicom/dcmqi/segmentations/ct-3slice": ((512, 512, 3), "LPS", (0.810547, 0.810547, 1)),
    "dicom/rtutils/mock_data": ((512, 512, 2), "LPS", (0.488281, 0.488281, 5)),
    "dicom/rtutils/one_slice_data": ((100, 50, 1), "LPS", (2.5, 3.5, 1)),
    "dicom/rtutils/oriented_data": ((100, 50, 3), "LPS", (2.5, 3.5, 4.5)),
    "dicom/torchio/dicom": ((88, 128, 17), "RAS", (2, 2, 2)),
    "totalsegmentator/example_ct_dicom": ((512, 512, 20), "LPS", (0.976562, 0.976562, 2)),
}

REFUSED_FOLDERS = {
    "dicom": "holds 16 series; pass series=",
    "dicom/dcmqi/segmentations/23x38x3": "holds 2 series",
    "dicom/dcmqi/segmentations/23x38x3/nrrd": "holds no DICOM image",
    "dicom/rtutils": "number 3, 'PHANTOM_EXAMPLE', CT, 2 slices, UID 2.16",
    "dicom/rtutils/empty": "holds no DICOM image",
    "geometry/nibabel": "holds no DICOM image",
}


def files_of(row: list[str], data_dir: Path) -> list[Path]:
    if "*" not in row[0]:
        return [data_dir / row[0]]
    folder, pattern = (data_dir / row[0]).parent, Path(row[0]).name
    return sorted(p for p in folder.iterdir() if fnmatch.fnmatch(p.name, pattern))


def test_the_table_is_complete(data_dir: Path) -> None:
    there = {p for folder in FOLDERS for p in (data_dir / folder).rglob("*") if p.is_file()}
    listed = [p for row in ROWS for p in files_of(row, data_dir)]
    assert len(listed) == len(set(listed))
    assert set(listed) == there


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_file_is_read_or_refused_as_told(data_dir: Path, row: list[str]) -> None:
    _, told, text = row
    for path in files_of(row, data_dir):
        if " " not in told:
            with pytest.raises(getattr(errors, told)) as caught:
                read(path)
            assert type(caught.value).__name__ == told
            assert text in str(caught.value)
            assert path.stem.split("+")[0][:6] in str(caught.value)
            if "frames" in text:
                compare(read(path, frame=1), path, frame=1)
            if "complex" in text:
                compare(read(path, complex_part="magnitude"), path)
            continue
        volume = read(path)
        shape, orientation, *spacing, dtype = told.split()
        assert "x".join(map(str, volume.array.shape)) == shape
        assert volume.grid.orientation == orientation
        assert np.allclose(volume.grid.spacing_mm, [float(s) for s in spacing], rtol=1e-3)
        assert volume.dtype == dtype
        assert not text or any(text in note for note in volume.notes), volume.notes
        assert text or not any("unknown" in note for note in volume.notes)
        assert "Doe" not in str(volume.meta)
        compare(volume, path)


# -- the same with other libraries ---------------------------------------------------------------

NIBABEL = (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".mnc", ".HEAD", ".BRIK.gz", ".PAR", ".REC")
NOT_FOR_ITK = (
    "bz2",
    "test2d_ascii",
    "test_simple4d",
    "byteskip_minus_one_nifti",
    "dx_image",
    "frame_rgb",
)


def compare(volume: Volume, path: Path, frame: int | None = None) -> None:
    """Compare with nibabel or SimpleITK, whichever reads the format."""
    read_by_itk = volume.meta["format"] in ("NRRD", "MetaImage", "DICOM")
    if path.name.endswith(NIBABEL):
        compare_nibabel(volume, path, frame)
    elif read_by_itk and not any(name in path.name for name in NOT_FOR_ITK):
        compare_itk(volume, sitk.ReadImage(str(path)))


def compare_nibabel(volume: Volume, path: Path, frame: int | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = nib.load(path)
        data = np.asanyarray(image.dataobj)
    if path.suffix in (".PAR", ".REC"):  # nibabel leaves it open
        image.dataobj.file_like.close()
    assert np.allclose(image.affine, volume.grid.affine, atol=1e-4)
    if data.dtype.names:
        data = np.stack([data[name] for name in data.dtype.names], axis=-1)
    if data.dtype.kind == "c":
        data = np.abs(data)
    if frame is not None:
        data = data[..., frame]
    assert np.allclose(
        data.reshape(volume.array.shape), volume.array, rtol=1e-5, atol=1e-4, equal_nan=True
    )


def compare_itk(volume: Volume, image: sitk.Image) -> None:
    values = sitk.GetArrayFromImage(image)
    values = values.T if image.GetDimension() == 3 else values.T[:, :, None]
    assert np.allclose(values, volume.array, rtol=1e-5, atol=1e-4)
    ends = np.array(volume.shape) - 1
    for corner in np.ndindex(2, 2, 2):
        index = (ends * corner).tolist()
        found = np.zeros(3)
        found[: image.GetDimension()] = image.TransformIndexToPhysicalPoint(
            index[: image.GetDimension()]
        )
        if image.GetDimension() == 2:
            found[2] = index[2]
        assert np.allclose(found * (-1, -1, 1), volume.grid.index_to_mm(index), atol=5e-3)


# -- folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERIES)
def test_each_series_is_sorted_and_placed_as_itk_does(data_dir: Path, name: str) -> None:
    volume = read(data_dir / name)
    shape, orientation, spacing = SERIES[name]
    assert volume.shape == shape
    assert volume.grid.orientation == orientation
    assert np.allclose(volume.grid.spacing_mm, spacing, rtol=1e-4)
    reader = sitk.ImageSeriesReader()
    files = [
        f for f in reader.GetGDCMSeriesFileNames(str(data_dir / name)) if "rt" not in Path(f).name
    ]
    if len(files) < volume.shape[2] or len(files) == 1:
        # GDCM does not sort the anonymised series, whose slices share one UID: sort by position here
        files = sorted(
            map(str, (data_dir / name).iterdir()), key=lambda f: read(f).grid.origin_mm[2]
        )
    reader.SetFileNames(files)
    compare_itk(volume, reader.Execute())


@pytest.mark.parametrize("name", REFUSED_FOLDERS)
def test_folders_that_are_no_series_are_refused_with_a_list(data_dir: Path, name: str) -> None:
    with pytest.raises(errors.FileError) as caught:
        read(data_dir / name)
    assert REFUSED_FOLDERS[name] in str(caught.value)


def test_a_series_is_chosen_by_number_description_or_uid(data_dir: Path) -> None:
    folder = data_dir / "dicom/rtutils"
    assert read(folder, series=3).shape == (512, 512, 2)
    assert read(folder, series="phantom_example").shape == (512, 512, 2)
    both = read(data_dir / "dicom/dcmqi/segmentations", series="Image 24x38x3")
    assert both.shape == (24, 38, 3)
    with pytest.raises(errors.FileError, match="4 series match series=123456"):
        read(data_dir / "dicom/dcmqi/segmentations", series=123456)
    with pytest.raises(errors.FileError, match="no series matches"):
        read(folder, series="absent")


def test_frames_of_a_multiframe_file_equal_its_single_files(data_dir: Path) -> None:
    for name in ("23x38x3", "24x38x3"):
        folder = data_dir / "dicom/dcmqi/segmentations" / name
        one, many = read(folder / "multiframe/mf.dcm"), read(folder / "image")
        assert one.grid.same_as(many.grid)
        assert np.array_equal(one.array, many.array)


# -- segmentations against what dcmqi made of them ------------------------------------------------


@pytest.mark.parametrize(
    ("segmentation", "nrrd"),
    [
        ("liver.dcm", "liver_seg.nrrd"),
        ("sparse-labelmap-noppv.dcm", "sparse_labelmap_noppv_seg.nrrd"),
        ("sparse-labelmap-ppv5.dcm", "sparse_labelmap_ppv5_seg.nrrd"),
        ("23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd"),
        ("24x38x3/seg/label.seg", "24x38x3/nrrd/label.nrrd"),
    ],
)
def test_segmentations_lie_where_dcmqi_puts_them(
    data_dir: Path, segmentation: str, nrrd: str
) -> None:
    folder = data_dir / "dicom/dcmqi/segmentations"
    found, wanted = read_labels(folder / segmentation), read_labels(folder / nrrd)
    assert found.names == {1: "Liver"}
    # dcmqi fills slices that are not stored with the padding value 5, which is no segment
    liver = wanted.labels()[0]
    assert np.array_equal(found.to_grid(wanted.grid).array != 0, wanted.array == liver)


def test_overlapping_segments_are_merged_or_kept_apart_when_asked(data_dir: Path) -> None:
    folder = data_dir / "dicom/dcmqi/segmentations"
    merged = read_labels(folder / "partial_overlaps.dcm", overlap="merge")
    apart = read(folder / "partial_overlaps.dcm", overlap="channels")
    assert isinstance(merged, LabelMap)
    assert merged.shape == (512, 512, 3)
    assert any("overlap in 3134 voxels; there the later" in note for note in merged.notes)
    assert apart.channels == ("GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE")
    last = np.max(apart.array * np.arange(1, 6), axis=-1)
    assert np.array_equal(last, merged.array)


@pytest.mark.parametrize(
    "name",
    [
        "ct_binary",
        "ct_binary_overlap",
        "ct_binary_fractional",
        "ct_true_fractional",
        "ct_binary_single_frame",
    ],
)
def test_segmentations_agree_with_highdicom(data_dir: Path, name: str) -> None:
    highdicom = pytest.importorskip("highdicom")
    path = data_dir / f"dicom/highdicom/seg_image_{name}.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = highdicom.seg.segread(path).get_volume(combine_segments=False)
    found = read(path, overlap="channels")
    affine = np.diag([-1, -1, 1, 1]) @ wanted.affine  # LPS; axes slice, row, column
    values = np.moveaxis(wanted.array, (2, 1, 0), (0, 1, 2))
    used = [k for k in range(values.shape[2]) if values[:, :, k].any()]
    assert used
    for k in used:
        mm = affine @ [k, 0, 0, 1]
        slot = found.grid.mm_to_index(mm[:3])
        assert np.allclose(slot, np.rint(slot), atol=1e-3)
        assert np.allclose(found.array[:, :, int(np.rint(slot[2]))], values[:, :, k], atol=1e-3)


def test_labels_of_totalsegmentator_come_with_their_names(data_dir: Path) -> None:
    labels = read_labels(data_dir / "totalsegmentator/example_seg.nii.gz")
    assert labels.names[1] == "spleen"
    assert labels.names[5] == "liver"
    assert set(labels.labels()) <= set(labels.names)
    image = read(data_dir / "totalsegmentator/example_ct_sm.nii.gz")
    assert labels.grid.same_as(image.grid)


@pytest.mark.parametrize("name", ["brain1", "brain2", "breast1"])
def test_whole_numbers_are_labels(data_dir: Path, name: str) -> None:
    labels = read_labels(data_dir / f"volumes/pyradiomics/{name}_label.nrrd")
    assert labels.labels() == [1]
    assert labels.grid.same_as(read(data_dir / f"volumes/pyradiomics/{name}_image.nrrd").grid)


def test_labels_stored_as_floats_become_integers_and_images_do_not(data_dir: Path) -> None:
    labels = read_labels(data_dir / "volumes/sct/t2/t2_seg-manual_labeled.nii.gz")
    assert labels.dtype == np.uint8
    with pytest.raises(errors.FileError, match="labels must be whole numbers, but it holds"):
        read_labels(data_dir / "geometry/niivue/AIL.nii.gz")
