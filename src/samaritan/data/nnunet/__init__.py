"""nnU-Net's data without nnU-Net: plans, preprocessing and its way back, folds, stored cases, results."""
