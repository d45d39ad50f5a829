"""Mistakes that mypy --strict finds: each line names the code of its error."""

from harness.config import Backbone, ExpAtt, ResNet, SqueezeExcite, Training
from harness.space import choose, same, span, vary
from harness.study import Evolution, Study

vary(ResNet, dept=20)  # call-arg
vary(ExpAtt, ratio=choose(4, 8))  # call-arg
vary(ExpAtt, radius_per="heads")  # arg-type
vary(ExpAtt, radius_per=choose("heads", "layer"))  # arg-type
vary(ExpAtt, radius_per=same(choose("heads", "layer")))  # arg-type
vary(ExpAtt, heads=span(0.5, 2.0))  # arg-type
vary(ExpAtt, heads=choose("1", "2"))  # arg-type
vary(ResNet, stages=(None, choose(1, 2), None))  # arg-type
vary(ResNet, stages=(None, ExpAtt, None))  # arg-type
vary(Backbone, "timm:x", slots={"s3": "stages.2"}, s3=3)  # arg-type
vary(Backbone, "timm:x", slots={"s3": choose(2, 3)})  # dict-item
vary(Training, augment=choose("none", "mirror"))  # arg-type
span(1, 8, step=0.5).bit_length()  # attr-defined
hoisted = choose("head", "layer")
vary(ExpAtt, radius_per=hoisted)  # arg-type
Study(name="x", space=SqueezeExcite(), strategy=Evolution(trials=3))  # arg-type
Study(name="x", space=ResNet(), strategy=Evolution(trial=3))  # call-arg
Study(name="x", space=ResNet(), strategy="evolution")  # arg-type
