"""What the annotation of samples is called, in lower case: as the parts of a batch, and as parameters of a forward."""

LABELS = (
    *("labels", "label", "targets", "target", "y", "gt_label", "gt_labels", "classes", "class", "cls"),
    *("class_labels", "class_label", "class_id", "class_ids", "class_idx", "category", "category_id"),
    *("category_ids", "label_id", "label_ids", "fine_label", "y_true"),
)
"""The names of labels."""

MASKS = (
    *("masks", "mask", "segmentation", "segmentations", "segmentation_mask", "segmentation_masks", "seg"),
    *("segmentation_map", "segmentation_maps", "semantic_mask", "object_mask", "gt_mask", "gt_masks"),
    *("mask_labels", "annotation_mask"),
)
"""The names of segmentations."""

BOXES = ("boxes", "box", "bboxes", "bbox", "bbox_xyxy", "boxes_xyxy", "gt_boxes", "gt_bboxes")
"""The names of boxes, but for those with a format behind them."""
