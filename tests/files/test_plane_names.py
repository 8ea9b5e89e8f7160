"""What names of planes and files say: a table of names as surveys and tools write them."""

import pytest

from lensjax.files.plane_names import kind_of, names_plane, subject_of

# Names by kind: Euclid, HST and JWST, LSST and HSC, DES, Legacy Surveys, Pan-STARRS, ZTF, Spitzer,
# PyAutoLens, and plain words.
KINDS = {
    "variance": "VAR VARIANCE var_poisson VAR_RNOISE varmap SCI_VAR I_VAR variances",
    "inverse variance": "IVAR InvVar invvar-r legacy_invvar IVM inv_var inv_variance inverse_var "
    "IVARmap",
    "weight": "WHT wht2 F814W_WHT weight weightmap WGT j8_drc_wht expwt WHTmap",
    "standard deviation": "RMS VIS_RMS NIR_H_RMS RMS_F814W ERR err_1 SCI_ERR SIGMA sigma_map STD "
    "stDev UNCERT uncertainty uncimg noise_map noiseMap NOISE munc IMGERR RMSmap sigmas r_noise",
    "mask": "MASK mskimg MSK FLAG VIS_FLAG flags DQ dq_mask BPM bad_pix BADPIXMASK maskbits "
    "quality not_valid",
    "map of good pixels": "GOOD_PIX valid goodpixmap valid_mask good_mask good_pixel_mask inv_mask",
    "segmentation": "SEG SEGM segmap g_segmentation",
    "exposure": "EXP EXPMAP exptime nexp-r TIME exposure_map",
    "coverage": "CTX context COV coverage CON confidence conf SAMP",
    "point-spread function": "PSF VIS_PSF psf_f160w psf-r PSFMAP kernel",
    "background": "SKY BKG background sky_g BGMAP back",
    "model": "MODEL lens_model psf_model BGMOD MDL",
    "residual": "RESID residuals NORM_RESIDUAL",
    "goodness of fit": "CHI chi2 CHISQ SNR",
}
IMAGES = (
    "SCI SCIENCE IMAGE DATA PRIMARY VIS VIS_BGSUB NIR_H_BGSUB bkgsub sky_sub SKYSUB skySubtracted "
    "bkg_subtracted G R I g F160W F814W_SCI NIR_Y image_g model_ii MODEL_III model_i_noisy "
    "model_iii_axion_12 exp1 EXP_2 lens_0001 psfmatched PSF_MATCHED noisefree noise_free noiseless "
    "no_noise with_noise masked image_masked weighted_mean H160 drz drc_sci arcs source euclid_vis "
    "HST_F606W axion cdm no_sub images arr_0 flux counts coadd stack median cutout lens-17 "
    "expanded errant modelling flagship signal variable_star maskless starsky"
)


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_planes_that_are_no_images(kind):
    names = KINDS[kind].split()
    cases = [name for plain in names for name in (plain, plain.lower(), plain.upper())]
    joined = {"InvVar", "WHTmap", "IVARmap", "RMSmap", "stDev", "noiseMap"}  # known as written
    gone = {each for name in joined for each in (name.lower(), name.upper())}
    camel = [name for name in cases if name not in gone]
    assert {name: kind_of(name) for name in camel} == dict.fromkeys(camel, kind)


@pytest.mark.parametrize("name", IMAGES.split())
def test_names_of_images(name):
    assert kind_of(name) is None


def test_joined_words_in_one_case_are_known_too():
    assert kind_of("STDEV") == kind_of("noisemap") == kind_of("NOISEMAP") == "standard deviation"
    assert kind_of("rmsmap") == "standard deviation"
    assert kind_of("invvar") == kind_of("INVVAR") == "inverse variance"


def test_what_belongs_together_has_one_subject():
    assert subject_of("VIS_BGSUB") == subject_of("VIS_RMS") == subject_of("vis_flag") == ("VIS",)
    assert subject_of("SCI") == subject_of("ERR") == ()
    assert subject_of("image_g") == subject_of("weight-g") == ("G",)
    assert subject_of("NIR_H_RMS") != subject_of("NIR_Y_BGSUB")
    # Components of a variance, and errors of a PSF, do not belong to the image.
    assert subject_of("VAR_RNOISE") == ("RNOISE",)
    assert subject_of("psf_err") == ("PSF",)


@pytest.mark.parametrize(
    ("stem", "is_plane"),
    [
        *((name, True) for name in ("noise_map", "psf", "lens1_wht", "psf_f160w", "g_rms")),
        *((name, True) for name in ("noise", "sky", "model", "weight_lens1", "j8_drz_ctx")),
        *(
            (name, False)
            for name in ("valid_0", "good_lens", "quality_A", "back_a", "sky_survey_a")
        ),
        *((name, False) for name in ("lens0_noise1", "sersic_model_a", "model_ii_3")),
    ],
)
def test_names_of_files_are_judged_by_strong_words_alone(stem, is_plane):
    assert names_plane(stem) == is_plane
